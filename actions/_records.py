"""What one walk reads, once each: the inventory, the values at hand, the issuers' records, and what we did already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from clawback.action import Context
from clawback.actions._credentials import key_id
from clawback.errors import NotFound, Unreachable
from clawback.model import CredentialRef, Receipt, ReceiptState
from clawback.world import AuditLog, Trail, TrailEvent

__all__ = ["Records", "digest", "role_name"]

_SECOND_NS = 1_000_000_000
_DAY_NS = 24 * 3600 * _SECOND_NS
_MAX_HASHED = 5_000
_IDS = ("accessor", "access_key_id")
_MADE = frozenset({ReceiptState.VERIFIED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED})


def digest(document: Mapping[str, Any] | str) -> str:
    """Of a policy document, however it is laid out; empty for what is none."""
    try:
        parsed = json.loads(document) if isinstance(document, str) else dict(document)
    except ValueError:
        return ""
    return hashlib.sha256(json.dumps(parsed, sort_keys=True).encode()).hexdigest()


def role_name(role: str) -> str:
    """`arn:aws:iam::1:role/path/NAME` → NAME."""
    return role.rpartition("/")[2]


class Records:
    """Memory of one walk. Nothing of it outlives the walk; a new one reads everything anew."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.world = ctx.world

    # -- the inventory -------------------------------------------------------------------------------------------------

    @cached_property
    def reissued(self) -> frozenset[str]:
        """Identifiers of credentials that this incident's own actions issued: accessors and access key ids."""
        found = set()
        for receipt in self.ctx.incident.receipts:
            if receipt.action in {"vault.rotate-token", "aws.rotate-key"}:
                found |= {str(receipt.outcome.get(name, "")) for name in _IDS}
                ref = self.ref(str(receipt.params.get("agent", "")), str(receipt.params.get("name", "")), staged=True)
                found |= {ref.identifiers.get(name, "") for name in _IDS} if ref else set()
        return frozenset(found - {""})

    def ref(self, agent: str, name: str, *, staged: bool = False) -> CredentialRef | None:
        """What the agent holds under that name, or what waits to be given to it."""
        if not agent or not name:
            return None
        if staged:
            try:
                return self.world.secrets.staged_ref(agent, name)
            except NotFound:
                return None
        return next((ref for ref in self.world.secrets.refs(agent) if ref.name == name), None)

    def token_value(self, agent: str, name: str, accessor: str) -> str | None:
        """The value of a held Vault token, while the store has it."""
        ref = self.ref(agent, name)
        if ref is None or ref.kind != "vault-token":
            return None
        if ref.identifiers.get("accessor") == accessor:
            return self.world.secrets.current(agent, name)
        return self.world.secrets.old(agent, name)

    def aws_value(self, agent: str, name: str, access_key_id: str) -> str | None:
        """The value of a held AWS credential, while the store has it."""
        if not agent or not name:
            return None
        store = self.world.secrets
        try:
            values = (store.current(agent, name), store.old(agent, name))
        except NotFound:
            return None
        return next((value for value in values if value and key_id(value) == access_key_id), None)

    def made(self, action: str, **params: str) -> Receipt | None:
        """The latest receipt of an action that was at least applied, by some of its parameters."""
        found = [
            receipt
            for receipt in self.ctx.incident.receipts
            if receipt.action == action
            and (receipt.state in _MADE or (receipt.state is ReceiptState.ACCEPTED and receipt.applied_ns))
            and all(str(receipt.params.get(name, "")) == value for name, value in params.items())
        ]
        return max(found, key=lambda receipt: receipt.applied_ns, default=None)

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """The incident's agent, and those in scope with it."""
        scoped = [
            str(other.get("id", ""))
            for receipt in self.ctx.incident.receipts
            if receipt.action == "incident.scope"
            for other in receipt.outcome.get("related", ())
        ]
        return tuple(dict.fromkeys(name for name in (self.ctx.incident.agent, *scoped) if name))

    @cached_property
    def tokens(self) -> frozenset[str]:
        """Accessors of the tokens that earlier walks of this incident found, but for those of unknown maker."""
        nodes = [
            node
            for receipt in self.ctx.incident.receipts
            if receipt.action == "credential.trace"
            for node in receipt.outcome.get("nodes", ())
        ]
        return frozenset(
            str(node["id"]) for node in nodes if node["kind"] == "vault-token" and "doubt" not in node.get("facts", {})
        )

    # -- Vault's -------------------------------------------------------------------------------------------------------

    @cached_property
    def audit(self) -> AuditLog | None:
        """The audit device's log."""
        return self.world.vault_records.audit()

    @cached_property
    def accessors(self) -> tuple[str, ...]:
        """Of all live tokens."""
        return tuple(self.world.vault_records.accessors())

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {}

    def hash(self, text: str) -> str:
        """As the audit device writes it."""
        if text not in self._hashes:
            self._hashes[text] = self.world.vault_records.audit_hash(text)
        return self._hashes[text]

    def accessor_of(self, hashed: str) -> str:
        """The live token whose accessor has this HMAC; empty where none has."""
        if len(self.accessors) > _MAX_HASHED:
            raise Unreachable(
                f"{len(self.accessors)} live tokens are too many to find one by its HMAC",
                hint="revoke what is not needed, or look the audit log up by hand",
            )
        return next((accessor for accessor in self.accessors if self.hash(accessor) == hashed), "")

    # -- the cloud's ---------------------------------------------------------------------------------------------------

    @cached_property
    def skew_ns(self) -> int:
        """How far our clock is ahead of the issuer's; up to a second too much, as the issuer's is rounded down."""
        return time.time_ns() - int(self.world.cloud.server_time().timestamp() * 1e9)

    def issuer_ns(self) -> int:
        """Now, by the issuer's clock, rounded up to whole seconds."""
        return int(self.world.cloud.server_time().timestamp() + 1) * _SECOND_NS

    @cached_property
    def since_ns(self) -> int:
        """From when on everybody's calls are read: a day before the first finding."""
        first = min((finding.time_ns for finding in self.ctx.incident.findings), default=self.ctx.incident.opened_ns)
        return max(0, first - _DAY_NS)

    @cached_property
    def trail(self) -> Trail:
        """Everybody's calls."""
        return self._read(self.world.cloud_records.trail(since_ns=self.since_ns))

    @cached_property
    def _untils(self) -> list[int]:
        return []

    def _read(self, trail: Trail) -> Trail:
        if trail.until_ns:
            self._untils.append(trail.until_ns)
        return trail

    @property
    def until_ns(self) -> int:
        """Up to when what was read of the trail can be complete; 0: until it was read, or none was."""
        return min(self._untils, default=0)

    @cached_property
    def _trails(self) -> dict[str, Trail]:
        return {}

    def trail_of(self, access_key_id: str) -> Trail:
        """One key's calls."""
        if access_key_id not in self._trails:
            self._trails[access_key_id] = self._read(self.world.cloud_records.trail_of(access_key_id))
        return self._trails[access_key_id]

    @cached_property
    def _inline(self) -> dict[str, Mapping[str, dict[str, Any]]]:
        return {}

    def inline(self, principal: str) -> Mapping[str, dict[str, Any]]:
        """A principal's inline policies."""
        if principal not in self._inline:
            self._inline[principal] = self.world.cloud_records.inline(principal)
        return self._inline[principal]

    @cached_property
    def roles(self) -> Mapping[str, Mapping[str, Any]]:
        """Role ARN → trust policy."""
        return {role.arn: role.trust for role in self.world.cloud_records.roles()}

    @cached_property
    def issuing(self) -> tuple[TrailEvent, ...]:
        """Calls by sessions of which the record does not say whose they are. AWS always says; a stand-in may not."""
        return tuple(
            event
            for event in self.trail.events
            if event.caller_key.startswith("ASIA") and not event.issuer and not event.user
        )
