"""Issue the agent a dynamic credential anew (a database login, say), with its present Vault token.

It is asked for as the agent would ask, so it can be no more than the agent's policies allow. A lease whose value a
crash lost was given to nobody; it ends with its time, or with the agent's token.
`vault.revoke-leases` takes leases back.
"""

from __future__ import annotations

from dataclasses import replace

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
)
from clawback.errors import InvalidInput, Refused
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND = "vault-lease"


def _path(ref: CredentialRef) -> str:
    path = ref.identifiers.get("path", "")
    if not path:
        raise InvalidInput(f"{ref.name} names no path to issue it from", hint="its owner has to issue it")
    return path


def _token(ctx: Context, agent: str) -> str:
    for ref in ctx.world.secrets.refs(agent):
        if ref.kind == "vault-token":
            return ctx.world.secrets.current(agent, ref.name)
    raise Refused(f"{agent} holds no Vault token to ask with", hint="issue the token first")


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    accepted, answer = ctx.world.vault.token_works(_token(ctx, params.agent))
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: {ref.identifiers.get('lease', 'its lease')}",
            f"+ {params.agent}/{params.name}: a new lease from {_path(ref)}",
        ),
        checks=(f"the agent's token: {'accepted' if accepted else 'refused'} ({answer})",),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    return {"ref": as_record(ref), "path": _path(ref), "lease": ref.identifiers.get("lease", "")}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    store, vault = ctx.world.secrets, ctx.world.vault
    present = held(ctx, params, _KIND)
    first = present.identifiers.get("lease", "") == captured["lease"]
    if first or not _live(ctx, present):  # or the new one was revoked since
        staged = store.staged_ref(params.agent, params.name)
        if staged is None or not _live(ctx, staged):
            old = from_record(captured["ref"])
            lease, value = vault.lease_issue(_token(ctx, params.agent), captured["path"])
            staged = replace(old, identifiers={**old.identifiers, "lease": lease})
            store.stage(params.agent, staged, value)
        store.promote(params.agent, params.name, keep_old=not first)
        present = staged
    return {"lease": present.identifiers["lease"], "replaced": captured["lease"]}


def _live(ctx: Context, ref: CredentialRef) -> bool:
    lease = ref.identifiers.get("lease", "")
    return bool(lease) and lease in ctx.world.vault.leases(lease.rpartition("/")[0])


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    present = held(ctx, params, _KIND)
    live = _live(ctx, present)
    replaced = present.identifiers.get("lease") == outcome["lease"] != captured["lease"]
    # That it is a lease in force, the issuer says; whether its login opens the door, only using it would show.
    missing = ("what was leased was not itself used",)
    verified = live and replaced
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=missing),
        proof=f"new lease {outcome['lease']} is {'in force' if live else 'NOT IN FORCE'}; {missing[0]}",
        details={"missing": list(missing)},
    )


ACTION: Action[CredentialParams] = Action(
    id="vault.issue-lease",
    summary="Issue the agent's dynamic credential anew, with its present Vault token.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"vault:sys/leases/lookup"}),
    scope="one dynamic credential of one agent; asked for with the agent's own token",
    openc2="restore",
    d3fend="D3-RIC",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
