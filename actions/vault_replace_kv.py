"""Replace a secret that Vault only stores: a new version where somebody supplied one, and the leaked one unreadable.

Clawback cannot make such a value: a person gets it from its issuer and hands it over with `clawback secret put --next`.
Where none waits, the leaked version is made unreadable all the same, and the proof says that somebody must supply one.
Nothing is destroyed: undoing makes the old version readable again, and a version that was added stays the newest.

Vault stores the value and does not honour it. Whoever copied it can use it until its own issuer refuses it, so the
proof is `partial` at best.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import CredentialParams, as_record, enforcement, from_record, held, rechecked
from clawback.errors import InvalidInput, NotFound
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION", "KvParams"]

_KIND = "vault-kv"
_COPIED = "the value itself was not revoked: only its own issuer can refuse it"


class KvParams(CredentialParams):
    """`every`: all older versions are made unreadable too; whoever may read the newest may read them."""

    every: bool = False


def _place(ref: CredentialRef) -> tuple[str, str]:
    path = ref.identifiers.get("path", "")
    if not path:
        raise InvalidInput(f"{ref.name} names no path", hint="store it with --id path=PATH")
    return ref.identifiers.get("mount", "secret"), path


def _versions(ctx: Context, mount: str, path: str) -> dict[int, bool]:
    found = ctx.world.vault.kv.versions(mount, path)
    if not found:
        raise NotFound(f"Vault has no versions of {path} at {mount}", hint="correct the path; KV version 1 keeps none")
    return found


def _leaked(ref: CredentialRef, versions: dict[int, bool], *, every: bool) -> list[int]:
    named = ref.identifiers.get("version", "")
    leaked = int(named) if named.isdecimal() else max(versions)
    return [number for number, live in sorted(versions.items()) if live and (number == leaked or every)]


def _staged(ctx: Context, params: CredentialParams) -> str | None:
    return ctx.world.secrets.staged(params.agent, params.name)


def _data(ref: CredentialRef, value: str) -> dict[str, Any]:
    """What is to be written of a value: the one field, or all of the secret as a JSON object."""
    if field := ref.identifiers.get("field"):
        return {field: value}
    try:
        data = json.loads(value)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise InvalidInput(
            f"the new value of {ref.name} is no JSON object", hint="or name the field it belongs in: --id field=NAME"
        )
    return data


def _agents_token(ctx: Context, agent: str) -> str:
    """The agent's present token; empty where it holds none."""
    store = ctx.world.secrets
    return next((store.current(agent, ref.name) for ref in store.refs(agent) if ref.kind == "vault-token"), "")


def _plan(ctx: Context, params: KvParams) -> Plan:
    ref = held(ctx, params, _KIND)
    mount, path = _place(ref)
    versions = _versions(ctx, mount, path)
    leaked, value = _leaked(ref, versions, every=params.every), _staged(ctx, params)
    others = [number for number, live in versions.items() if live and number not in leaked]
    if value is not None:
        _data(ref, value)
    new = f"version {max(versions) + 1}, with the value that was supplied"
    return Plan(
        changes=(
            *(f"- {mount}/{path}: version {number} (deleted, not destroyed)" for number in leaked),
            *((f"+ {mount}/{path}: {new}",) if value is not None else ()),
        ),
        checks=(
            *(() if value is not None else ("NO NEW VALUE was supplied: readers get nothing until somebody does",)),
            *((f"versions {', '.join(map(str, others))} stay readable",) if others else ()),
            _COPIED,
        ),
    )


def _capture(ctx: Context, params: KvParams) -> Record:
    ref = held(ctx, params, _KIND)
    mount, path = _place(ref)
    versions = _versions(ctx, mount, path)
    leaked, token = _leaked(ref, versions, every=params.every), _agents_token(ctx, params.agent)
    captured: dict[str, Any] = {"ref": as_record(ref), "mount": mount, "path": path, "newest": max(versions)}
    captured |= {"leaked": leaked, "worked_before": None}
    if token and leaked:
        data, answer = ctx.world.vault.kv.read_as(token, mount, path, leaked[-1])
        captured |= {"worked_before": data is not None, "answer_before": answer}
    return captured


def _apply(ctx: Context, params: KvParams, captured: Record) -> Record:
    kv, store = ctx.world.vault.kv, ctx.world.secrets
    mount, path, ref = captured["mount"], captured["path"], from_record(captured["ref"])
    present = held(ctx, params, _KIND)
    version = int(present.identifiers.get("version") or 0) if present != ref else 0
    value = _staged(ctx, params)
    if value is not None:
        version = _written(ctx, params, captured, value) or _write(ctx, captured, value)
        # With its number: a run after a crash finds by it that it was written.
        store.stage(params.agent, replace(ref, identifiers={**ref.identifiers, "version": str(version)}), value)
    kv.delete(mount, path, captured["leaked"])
    store.promote(params.agent, params.name)
    return {"version": version}


def _written(ctx: Context, params: KvParams, captured: Record, value: str) -> int:
    """The version that an earlier run wrote; 0 where there is none."""
    mount, path, ref = captured["mount"], captured["path"], from_record(captured["ref"])
    staged = ctx.world.secrets.staged_ref(params.agent, params.name)
    noted = int(staged.identifiers.get("version") or 0) if staged is not None else 0
    if noted > captured["newest"]:
        return noted
    newest = max(_versions(ctx, mount, path))
    if newest == captured["newest"]:
        return 0
    there, _ = ctx.world.vault.kv.read_as("", mount, path, newest)
    return newest if there is not None and _data(ref, value).items() <= there.items() else 0


def _write(ctx: Context, captured: Record, value: str) -> int:
    kv, mount, path, ref = ctx.world.vault.kv, captured["mount"], captured["path"], from_record(captured["ref"])
    newest = max(_versions(ctx, mount, path))
    put = kv.patch if ref.identifiers.get("field") else kv.put
    return put(mount, path, _data(ref, value), after=newest)


def _verify(ctx: Context, params: KvParams, captured: Record, outcome: Record) -> Verification:
    kv, token = ctx.world.vault.kv, _agents_token(ctx, params.agent)
    mount, path, ref = captured["mount"], captured["path"], from_record(captured["ref"])
    versions = _versions(ctx, mount, path)
    live = [number for number in captured["leaked"] if versions.get(number)]
    said = [f"versions {', '.join(map(str, live))} are STILL THERE" if live else "the leaked versions are deleted"]
    missing, readable, right = [_COPIED], False, True
    if token:
        for number in captured["leaked"]:
            data, answer = kv.read_as(token, mount, path, number)
            readable = readable or data is not None
            said.append(f"version {number} read by the agent: {'refused' if data is None else 'READ'} ({answer})")
    if captured["worked_before"] is not True:
        missing.append("the agent was not seen to read it before")
    if outcome["version"]:
        reader = token if captured["worked_before"] else ""  # what it could not read before, it need not read now
        data, answer = kv.read_as(reader, mount, path, outcome["version"])
        value = ctx.world.secrets.current(params.agent, params.name)
        right = data is not None and _data(ref, value).items() <= data.items()
        by, how = "by the agent" if reader else "by us", "as supplied" if right else "NOT as supplied"
        said.append(f"version {outcome['version']} read {by}: {how} ({answer})")
    else:
        missing.append(
            f"NO NEW VALUE was supplied: `clawback secret put {params.agent} {params.name}` takes one, after it was"
            " written to Vault"
        )
    verified = not live and not readable and right
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*said, *missing]),
        details={"version": outcome["version"], "missing": missing},
    )


def _recheck(ctx: Context, params: KvParams, captured: Record, outcome: Record) -> Verification:
    """The leaked versions alone: what was added since is whose right it is."""
    del params, outcome
    versions = _versions(ctx, captured["mount"], captured["path"])
    live = [str(number) for number in captured["leaked"] if versions.get(number)]
    return rechecked(holds=not live, proof=f"leaked versions that can be read: {', '.join(live) or 'none'}")


def _revert(ctx: Context, params: KvParams, captured: Record) -> None:
    del params
    if captured["leaked"]:
        ctx.world.vault.kv.undelete(captured["mount"], captured["path"], captured["leaked"])


def _verify_reverted(ctx: Context, params: KvParams, captured: Record) -> Verification:
    mount, path, token = captured["mount"], captured["path"], _agents_token(ctx, params.agent)
    versions = _versions(ctx, mount, path)
    gone = [number for number in captured["leaked"] if not versions.get(number)]
    missing = (f"version {max(versions)} stays the newest",) if max(versions) > captured["newest"] else ()
    said = [f"versions {', '.join(map(str, gone))} are NOT there" if gone else "what was deleted is there again"]
    read = True
    if token and captured["worked_before"]:
        data, answer = ctx.world.vault.kv.read_as(token, mount, path, captured["leaked"][-1])
        read = data is not None
        how = "accepted" if read else "REFUSED"
        said.append(f"version {captured['leaked'][-1]} read by the agent: {how} ({answer})")
    seen = read and not gone
    return Verification(
        verified=seen,
        enforcement=enforcement(verified=seen, missing=missing),
        proof="; ".join([*said, *missing]),
    )


ACTION: Action[KvParams] = Action(
    id="vault.replace-kv",
    summary="Replace a stored secret by the value that was supplied, and make the leaked version unreadable.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset({"vault:secret/data", "vault:secret/delete", "vault:secret/metadata", "vault:secret/undelete"}),
    scope="one stored secret, whoever reads it",
    openc2="update",
    d3fend="D3-CRO",
    params=KvParams,
    key=lambda params: f"{params.agent}/{params.name}{'/every' if params.every else ''}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
