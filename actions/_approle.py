"""What replacing an AppRole secret-id takes: where it is, its bounds, the logins that came of it, and a new one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clawback.action import Context, Record
from clawback.actions._credentials import CredentialParams, from_record, least
from clawback.errors import InvalidInput, NotFound
from clawback.model import CredentialRef

__all__ = ["KIND", "bounds_of", "issued", "logins", "made", "meta_of", "place", "restored", "role_of"]

KIND = "vault-approle"


def place(ref: CredentialRef) -> tuple[str, str]:
    """Mount and role. `InvalidInput` where the reference names none."""
    role = ref.identifiers.get("role", "")
    if not role or not ref.identifiers.get("accessor"):
        raise InvalidInput(
            f"{ref.name} names no role and accessor", hint="store it with --id role=NAME and --id accessor=ACCESSOR"
        )
    return ref.identifiers.get("mount", "approle"), role


def role_of(ctx: Context, mount: str, role: str) -> dict[str, Any]:
    """See `AppRole.role`. `NotFound` where there is none."""
    found = ctx.world.vault.approle.role(mount, role)
    if found is None:
        raise NotFound(f"Vault has no AppRole {role} at {mount}", hint="correct the credential's role and mount")
    return found


def logins(ctx: Context, mount: str, meta: dict[str, str]) -> list[str]:
    """Accessors of live tokens that such a login gave, but for those that this incident's own secret-id gave."""
    vault, found = ctx.world.vault, []
    for accessor in vault.token_find(meta):
        facts = vault.token_lookup(accessor)
        ours = facts is not None and facts["meta"].get("clawback_incident") == ctx.incident.id
        if facts is not None and facts["path"] == f"auth/{mount}/login" and not ours:
            found.append(accessor)
    return found


def meta_of(role: str, facts: dict[str, Any] | None, *, every: bool) -> dict[str, str]:
    """Metadata that tokens have which were got with the secret-id, or, with `every`, with any of the role."""
    own = {} if every or facts is None else facts["meta"]
    return {**own, "role_name": role}


def bounds_of(ctx: Context, role: dict[str, Any], facts: dict[str, Any] | None) -> tuple[int, int, int]:
    """Seconds, logins meant for the agent, and logins issued: one more, for the proof, where the role has room."""
    most, old = ctx.world.vault.reissue, facts or {"ttl": 0, "uses": 0}
    ttl = least(most.ttl, role["ttl"], old["ttl"])
    uses = least(most.uses, role["uses"], old["uses"])
    return ttl, uses, uses + 1 if not role["uses"] or uses < role["uses"] else uses


def issued(
    ctx: Context, params: CredentialParams, captured: Record, bounds: dict[str, int], purpose: str
) -> CredentialRef:
    """The secret-id that an earlier run staged, if it is this step's and lives; else a new one, staged."""
    approle, store = ctx.world.vault.approle, ctx.world.secrets
    mount, role = captured["mount"], captured["role"]
    tags = {
        "clawback_agent": params.agent,
        "clawback_incident": ctx.incident.id,
        "clawback_step": _step(params, purpose),
    }
    staged = store.staged_ref(params.agent, params.name)
    if staged is not None and (facts := approle.facts(mount, role, staged.identifiers["accessor"])):
        if tags.items() <= facts["meta"].items():
            return staged
        approle.destroy(mount, role, staged.identifiers["accessor"])  # another step's, never given to anybody
    if store.begin(params.agent, params.name):
        # An earlier run asked and staged nothing: the issuer may hold one that nobody has the value of.
        for accessor in made(ctx, params, captured):
            approle.destroy(mount, role, accessor)
    old, own = from_record(captured["ref"]), captured["facts"] or {"meta": {}, "cidrs": [[], []]}
    value, accessor = approle.issue(
        mount,
        role,
        ttl=bounds["ttl"],
        uses=bounds["issued"],
        meta={**own["meta"], **tags},
        cidrs=(list(own["cidrs"][0]), list(own["cidrs"][1])),
    )
    ref = replace(old, identifiers={**old.identifiers, "accessor": accessor})
    store.stage(params.agent, ref, value)
    return ref


def made(ctx: Context, params: CredentialParams, captured: Record, purpose: str = "") -> list[str]:
    """Live secret-ids that a step like this one issued, in whichever incident, and that the agent does not hold."""
    approle, store = ctx.world.vault.approle, ctx.world.secrets
    mount, role = captured["mount"], captured["role"]
    kept = {captured["ref"]["identifiers"]["accessor"]}
    kept |= {ref.identifiers.get("accessor", "") for ref in store.refs(params.agent) if ref.kind == KIND}
    found = []
    for accessor in approle.secret_ids(mount, role):
        meta = (approle.facts(mount, role, accessor) or {"meta": {}})["meta"]
        ours = (
            meta.get("clawback_step", "").startswith(_step(params, purpose)) and meta["clawback_agent"] == params.agent
        )
        if ours and accessor not in kept:
            found.append(accessor)
    return found


def _step(params: CredentialParams, purpose: str) -> str:
    return f"vault.rotate-secret-id/{params.name}/{purpose}"


def restored(facts: dict[str, Any] | None, params: CredentialParams) -> bool:
    """Whether a secret-id is the one that undoing issued."""
    return facts is not None and facts["meta"].get("clawback_step") == _step(params, "restored")
