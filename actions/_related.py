"""Which other agents an incident reaches: those that work for the agent, and those that hold the same credential."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clawback.model import AgentInfo, CredentialRef

__all__ = ["MOST_RELATED", "Related", "related", "same_issuance", "same_revocation"]

# More are named and left to a person: `clawback halt` takes any number at once.
MOST_RELATED = 20

_ONE_CREDENTIAL = {
    "vault-token": ("accessor",),
    "vault-lease": ("prefix", "lease"),
    "vault-kv": ("mount", "path"),
    "vault-approle": ("role", "accessor"),
    "vault-static-role": ("role",),
    "oidc-token": ("issuer", "client_id", "sub"),
    "oidc-client": ("issuer", "client_id"),
    "aws-access-key": ("access_key_id",),
    "aws-session": ("role", "session"),
}
_ONE_REVOCATION = {
    "vault-token": ("accessor",),
    "vault-lease": ("prefix",),
    "vault-kv": ("mount", "path"),
    "vault-approle": ("role",),
    "vault-static-role": ("role",),
    "oidc-token": ("issuer", "client_id"),
    "oidc-client": ("issuer", "client_id"),
    "aws-access-key": ("user",),
    "aws-session": ("role",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """One agent in scope with another: `credentials` are those that fall with the other's, `why` says how it came in.

    Of a sub-agent these are all: it did what it was told. Of a sharer, those that it shares.
    """

    info: AgentInfo
    why: tuple[str, ...]
    credentials: tuple[CredentialRef, ...] = field(default=())


def same_issuance(one: CredentialRef, other: CredentialRef) -> bool:
    """Whether two agents hold one and the same credential."""
    return _same(one, other, _ONE_CREDENTIAL)


def same_revocation(one: CredentialRef, other: CredentialRef) -> bool:
    """Whether two agents hold what one revocation would take from both."""
    return _same(one, other, _ONE_REVOCATION)


def _same(one: CredentialRef, other: CredentialRef, by: dict[str, tuple[str, ...]]) -> bool:
    shared = by.get(one.kind)
    if one.kind != other.kind or not shared:
        return False
    return all(one.identifiers.get(x) and one.identifiers[x] == other.identifiers.get(x) for x in shared)


def related(info: AgentInfo, everyone: Iterable[AgentInfo]) -> tuple[Related, ...]:
    """Sub-agents to any depth, then whoever shares a credential with the agent or one of them; by name within each."""
    others = sorted((one for one in everyone if one.agent != info.agent), key=lambda one: one.agent)
    below = _below(info.agent, others)
    held = [(info.agent, ref) for ref in info.credentials]
    held += [(one.agent, ref) for one in below.values() for ref in one.credentials]
    found = [Related(info=one, why=(f"works for {one.parent}",), credentials=one.credentials) for one in below.values()]
    for one in others:
        if one.agent in below:
            continue
        shared = {
            ref.name: (owner, ref)
            for ref in one.credentials
            for owner, theirs in held
            if owner != one.agent and same_issuance(ref, theirs)
        }
        if shared:
            why = tuple(f"holds the same {ref.kind} as {owner}" for owner, ref in shared.values())
            found.append(Related(info=one, why=why, credentials=tuple(ref for _, ref in shared.values())))
    return tuple(found)


def _below(agent: str, others: list[AgentInfo]) -> dict[str, AgentInfo]:
    """Those that work for the agent, and for those in turn. A circle of parents ends by itself."""
    found: dict[str, AgentInfo] = {}
    waiting = [agent]
    while waiting:
        parent = waiting.pop(0)
        for one in others:
            if one.parent == parent and one.agent not in found:
                found[one.agent] = one
                waiting.append(one.agent)
    return found
