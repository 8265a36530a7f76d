"""What an agent holds and everything issued from it, as a graph: each credential, how it is known, whether it lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

__all__ = ["CredentialGraph", "CredentialNode", "Known", "Life"]


class Known(StrEnum):
    """How a credential came to be known."""

    INVENTORY = "inventory"
    ISSUER = "issuer record"
    TELEMETRY = "telemetry"


class Life(StrEnum):
    """What was seen of it. Only `refused` and `gone` are closed; `unknown` is not, and says why."""

    ALIVE = "alive"
    REFUSED = "refused"  # it was used, and the issuer said no
    GONE = "gone"  # by the issuer's own record: absent, inactive, denied everything, or none of the agent's
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialNode:
    """One credential, or one thing that credentials come from (a role's sessions, a trust policy), never its value.

    kind        what `id` is an id of; `actions/_issuers/` has a file for each
    said        where it was read, in words
    facts       what asking for it and closing it takes; no secrets
    parents     keys of the nodes that it was issued from
    holders     agents that hold it
    issued_ns   when it was last issued from the graph, Unix nanoseconds; 0 where no record tells
    expires_ns  when it ends by itself; 0 for never, or unknown
    seen        how `life` was observed
    """

    kind: str
    id: str
    known: Known
    said: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    issued_ns: int = 0
    expires_ns: int = 0
    life: Life = Life.UNKNOWN
    seen: str = ""

    @property
    def key(self) -> str:
        """Unique within a graph."""
        return f"{self.kind}/{self.id}"

    @property
    def closed(self) -> bool:
        """It was seen to be of no more use."""
        return self.life in (Life.REFUSED, Life.GONE)

    def merged(self, other: CredentialNode) -> CredentialNode:
        """The same credential found twice: all parents and holders, the latest issue, the first word on the rest."""
        return replace(
            self,
            facts={**other.facts, **self.facts},
            parents=tuple(dict.fromkeys((*self.parents, *other.parents))),
            holders=tuple(dict.fromkeys((*self.holders, *other.holders))),
            issued_ns=max(self.issued_ns, other.issued_ns),
            expires_ns=max(self.expires_ns, other.expires_ns),
        )

    def as_record(self) -> dict[str, Any]:
        """For the journal: plain JSON, what is empty left out."""
        record = {
            "kind": self.kind,
            "id": self.id,
            "known": self.known.value,
            "said": self.said,
            "facts": dict(self.facts),
            "parents": list(self.parents),
            "holders": list(self.holders),
            "issued_ns": self.issued_ns,
            "expires_ns": self.expires_ns,
            "life": self.life.value,
            "seen": self.seen,
        }
        return {name: value for name, value in record.items() if value}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CredentialNode:
        """From the journal."""
        return cls(
            kind=str(record["kind"]),
            id=str(record["id"]),
            known=Known(record["known"]),
            said=str(record.get("said", "")),
            facts={str(name): str(value) for name, value in record.get("facts", {}).items()},
            parents=tuple(record.get("parents", ())),
            holders=tuple(record.get("holders", ())),
            issued_ns=int(record.get("issued_ns", 0)),
            expires_ns=int(record.get("expires_ns", 0)),
            life=Life(record.get("life", "unknown")),
            seen=str(record.get("seen", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialGraph:
    """What a walk found.

    cut      what its bounds left out
    missing  what the issuers' records do not tell
    silent   keys of the nodes about which an issuer did not answer
    until_ns up to when the records that were read can be complete; 0: until they were read
    """

    nodes: tuple[CredentialNode, ...]
    silent: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    until_ns: int = 0

    @property
    def alive(self) -> tuple[CredentialNode, ...]:
        """What must still be closed."""
        return tuple(node for node in self.nodes if node.life is Life.ALIVE)

    @property
    def unknown(self) -> tuple[CredentialNode, ...]:
        """What nobody can say of whether it is closed."""
        return tuple(node for node in self.nodes if node.life is Life.UNKNOWN)

    @property
    def closed(self) -> bool:
        """Everything that was found is closed, and everything was looked at."""
        return not self.cut and all(node.closed for node in self.nodes)

    def as_record(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "nodes": [node.as_record() for node in self.nodes],
            "cut": list(self.cut),
            "missing": list(self.missing),
            "silent": list(self.silent),
            "until_ns": self.until_ns,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CredentialGraph:
        """From the journal."""
        return cls(
            nodes=tuple(CredentialNode.from_record(node) for node in record.get("nodes", ())),
            cut=tuple(record.get("cut", ())),
            missing=tuple(record.get("missing", ())),
            silent=tuple(record.get("silent", ())),
            until_ns=int(record.get("until_ns", 0)),
        )
