"""Change the password of an agent's database user at once: the old one is refused by the database, its sessions end.

Vault keeps the user and changes its password at the database. What a crash loses between Vault and the store is asked
for again: the password in force is Vault's to tell. Whoever else uses the same user must fetch the new password too.

A changed password closes no session that is open. Where the credential says where its database is (`host`, and `port`,
`database`, `sslmode`, `sslrootcert` where they differ from PostgreSQL's own), the user's sessions are ended with the
new password, and both are tried there. Nothing brings the old password back.
"""

from __future__ import annotations

import json
from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
    other_holders,
    rechecked,
    watch,
)
from clawback.errors import InvalidInput, NotFound
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND = "vault-static-role"


def _place(ref: CredentialRef) -> tuple[str, str]:
    role = ref.identifiers.get("role", "")
    if not role:
        raise InvalidInput(f"{ref.name} names no role", hint="store it with --id role=NAME")
    return ref.identifiers.get("mount", "database"), role


def _role(ctx: Context, ref: CredentialRef) -> dict[str, Any]:
    mount, role = _place(ref)
    found = ctx.world.vault.static_roles.role(mount, role)
    if found is None:
        raise NotFound(f"Vault has no static role {role} at {mount}", hint="correct the credential's role and mount")
    return found


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    facts, (_, role) = _role(ctx, ref), _place(ref)
    there = ref.identifiers.get("host")
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: the password of {facts['user']}, of {facts['rotated'] or 'unknown'}",
            *((f"- open sessions of {facts['user']} at {there}",) if there else ()),
            f"+ {params.agent}/{params.name}: a new password of {facts['user']}, by static role {role}",
        ),
        checks=(
            f"every user of role {role} needs the new password; Vault changes it every {facts['period']} s anyway",
            *(() if there else ("it names no host: the database itself will not be asked",)),
            *(f"also held by {agent}" for agent in other_holders(ctx, params.agent, ref, "role")),
        ),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    facts, (mount, role) = _role(ctx, ref), _place(ref)
    captured: dict[str, Any] = {
        "ref": as_record(ref),
        "mount": mount,
        "role": role,
        "user": facts["user"],
        "rotated": facts["rotated"],
        "worked_before": None,
    }
    if ref.identifiers.get("host"):
        value = ctx.world.secrets.current(params.agent, params.name)
        accepted, answer = ctx.world.databases.logs_in(ref.identifiers, facts["user"], _password(value))
        captured |= {"worked_before": accepted, "answer_before": answer}
    return captured


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    roles, store, ref = ctx.world.vault.static_roles, ctx.world.secrets, from_record(captured["ref"])
    mount, role = captured["mount"], captured["role"]
    if _role(ctx, ref)["rotated"] == captured["rotated"]:
        roles.rotate(mount, role)
    user, password = roles.credential(mount, role)
    if _password(store.current(params.agent, params.name)) != password:
        store.stage(params.agent, ref, _with(store.current(params.agent, params.name), user, password))
    outcome = {"rotated": _role(ctx, ref)["rotated"], "ended_at": ""}
    if ref.identifiers.get("host"):
        # Before the agent is given the new password: so none of its sessions is among those that end.
        outcome["ended_at"] = ctx.world.databases.end_sessions(ref.identifiers, user, password)
    store.promote(params.agent, params.name)
    return outcome


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    store, ref = ctx.world.secrets, from_record(captured["ref"])
    _, password = ctx.world.vault.static_roles.credential(captured["mount"], captured["role"])
    present = _password(store.current(params.agent, params.name))
    changed = _role(ctx, ref)["rotated"] != captured["rotated"]
    said = [
        f"Vault changed the password of {captured['user']} at {outcome['rotated']}"
        if changed
        else f"Vault has NOT changed the password of {captured['user']}",
    ]
    if present != password:
        said.append("the agent's is NOT the one in force")
    good, missing = changed and present == password, list[str]()
    if ref.identifiers.get("host"):
        seen, answers, missing = _at_the_database(ctx, params, captured, outcome)
        good, said = good and seen, said + answers
    else:
        missing = ["the database itself was not asked: the reference names no host", "open sessions were not ended"]
    return Verification(
        verified=good,
        enforcement=enforcement(verified=good, missing=tuple(missing)),
        proof="; ".join([*said, *missing]),
        details={"user": captured["user"], "missing": missing},
    )


def _recheck(ctx: Context, params: CredentialParams, captured: Record, _outcome: Record) -> Verification | None:
    """The old password alone: the new one is Vault's to change again."""
    place, old = captured["ref"]["identifiers"], ctx.world.secrets.old(params.agent, params.name)
    if not place.get("host") or old is None:
        return None
    accepted, answer = ctx.world.databases.logs_in(place, captured["user"], _password(old))
    return rechecked(holds=not accepted, proof=f"old password used: {'ACCEPTED' if accepted else 'refused'} ({answer})")


def _at_the_database(
    ctx: Context, params: CredentialParams, captured: Record, outcome: Record
) -> tuple[bool, list[str], list[str]]:
    """(all as it should be, what was seen, what could not be)."""
    databases, store = ctx.world.databases, ctx.world.secrets
    place, user = captured["ref"]["identifiers"], captured["user"]
    old, present = store.old(params.agent, params.name), _password(store.current(params.agent, params.name))
    missing: list[str] = []
    if captured["worked_before"] is not True:
        missing.append("the old password was not seen to work before")
    if old is None:
        refused, answer = True, "not used: its value was discarded"
        missing.append("the old password was not used")
    else:
        accepted, answer = databases.logs_in(place, user, _password(old))
        refused = not accepted
    works, new_answer = databases.logs_in(place, user, present)
    ended, left = False, 0
    if works:
        ended, left = watch(lambda: databases.sessions_before(place, user, present, outcome["ended_at"]), until=0)
    return (
        refused and ended,
        [
            f"old password used: {'refused' if refused else 'ACCEPTED'} ({answer})",
            f"new password used: {'accepted' if works else 'REFUSED'} ({new_answer})",
            f"{left} sessions from before {'are STILL OPEN' if left else 'are open'}",
        ],
        missing,
    )


def _password(value: str) -> str:
    """What is kept for the agent: a JSON object with `password`, or the password alone."""
    try:
        return str(json.loads(value)["password"])
    except (ValueError, KeyError, TypeError):
        return value


def _with(value: str, user: str, password: str) -> str:
    """The same form with another login; what else it holds stays."""
    try:
        document = json.loads(value)
    except ValueError:
        return password
    if not isinstance(document, dict):
        return password
    return json.dumps({**document, "username": user, "password": password})


ACTION: Action[CredentialParams] = Action(
    id="vault.rotate-static-role",
    summary="Change the password of the agent's database user now, and end the sessions opened with the old one.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"vault:database/static-roles/+", "vault:database/static-creds/+", "vault:database/rotate-role/+"}),
    scope="one database user, whoever uses it",
    openc2="update",
    d3fend="D3-CRO",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
