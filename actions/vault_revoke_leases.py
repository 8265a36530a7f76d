"""Revoke every Vault lease under a prefix: database logins, certificates and the like end at their own issuers.

All leases under the prefix go, whoever asked for them; the plan names each. Nothing brings a lease back: who needs one
asks for a new one.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import CredentialParams, enforcement, held, rechecked
from clawback.model import Phase

__all__ = ["ACTION", "LeaseParams"]

_SHOWN = 50


class LeaseParams(Params):
    """Either the name of a `vault-lease` that the agent holds, or the prefix itself."""

    agent: str = Field(min_length=1, max_length=128)
    name: str = Field("", max_length=128)
    prefix: str = Field("", max_length=512, pattern=r"^([^/\s]+/)*[^/\s]*/?$")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.name) == bool(self.prefix):
            raise ValueError("give either name or prefix")
        if self.prefix and "/" not in self.prefix.strip("/"):
            # `database` would end the logins of everybody; `database/creds/support` is one role's.
            raise ValueError("a whole mount is too wide: give mount/…/role")
        return self


def _prefix(ctx: Context, params: LeaseParams) -> str:
    if params.prefix:
        return params.prefix.strip("/")
    ref = held(ctx, CredentialParams(agent=params.agent, name=params.name), "vault-lease")
    return ref.identifiers["prefix"].strip("/")


def _plan(ctx: Context, params: LeaseParams) -> Plan:
    prefix = _prefix(ctx, params)
    leases = ctx.world.vault.leases(prefix)
    shown = [f"- lease {lease}" for lease in leases[:_SHOWN]]
    if len(leases) > _SHOWN:
        shown.append(f"- … and {len(leases) - _SHOWN} more")
    return Plan(changes=tuple(shown), checks=(f"{len(leases)} leases under {prefix}",))


def _capture(ctx: Context, params: LeaseParams) -> Record:
    prefix = _prefix(ctx, params)
    leases = ctx.world.vault.leases(prefix)
    return {"prefix": prefix, "leases": leases[:_SHOWN], "count": len(leases)}


def _apply(ctx: Context, params: LeaseParams, captured: Record) -> Record:
    del params
    ctx.world.vault.leases_revoke(captured["prefix"])
    return {"prefix": captured["prefix"]}


def _verify(ctx: Context, params: LeaseParams, captured: Record, outcome: Record) -> Verification:
    del params, outcome
    left = ctx.world.vault.leases(captured["prefix"])
    # The issuer waited for each backend's word. That a login is refused by its database, only using it would show.
    missing = ("what was leased was not itself used",)
    return Verification(
        verified=not left,
        enforcement=enforcement(verified=not left, missing=missing),
        proof=f"{len(left)} of {captured['count']} leases left under {captured['prefix']}; {missing[0]}",
        details={"left": left[:_SHOWN], "missing": list(missing)},
    )


def _recheck(ctx: Context, params: LeaseParams, captured: Record, outcome: Record) -> Verification:
    """Those that were there before: new ones under the prefix are whose right it is."""
    del params, outcome
    left = sorted(set(captured["leases"]) & set(ctx.world.vault.leases(captured["prefix"])))
    return rechecked(
        holds=not left, proof=f"{len(left)} of the revoked leases are in force{': ' * bool(left)}{', '.join(left)}"
    )


ACTION: Action[LeaseParams] = Action(
    id="vault.revoke-leases",
    summary="Revoke every Vault lease under a prefix.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"vault:sys/leases/lookup", "vault:sys/leases/revoke-prefix"}),
    scope="all leases under one prefix, whoever holds them",
    openc2="deny",
    d3fend="D3-CR",
    params=LeaseParams,
    key=lambda params: f"{params.agent}/{params.name or params.prefix}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
