"""Rotate a transit key and refuse its older versions: what was encrypted or signed with them is no longer taken.

Whoever got at ciphertexts, or at the right to make signatures, can do nothing more with them through Vault. So can
nobody else: data that was encrypted with an older version cannot be read until the minimum is lowered again or, better,
it is rewrapped. How much there is of that, Vault does not know. Therefore a person is asked first.

Undoing lowers the minimum to what it was; no version is destroyed in between, and the new one stays.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import CredentialParams, enforcement, held, rechecked
from clawback.errors import NotFound, Refused
from clawback.model import Phase

__all__ = ["ACTION", "TransitParams"]


class TransitParams(Params):
    """Either the name of a `vault-transit` that the agent holds, or the key itself."""

    agent: str = Field(min_length=1, max_length=128)
    name: str = Field("", max_length=128)
    mount: str = Field("transit", min_length=1, max_length=256)
    key: str = Field("", max_length=256)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.name) == bool(self.key):
            raise ValueError("give either name or key")
        return self


def _place(ctx: Context, params: TransitParams) -> tuple[str, str]:
    if params.key:
        return params.mount, params.key
    ref = held(ctx, CredentialParams(agent=params.agent, name=params.name), "vault-transit")
    return ref.identifiers.get("mount", "transit"), ref.identifiers.get("key", "")


def _key(ctx: Context, mount: str, key: str) -> dict[str, Any]:
    found = ctx.world.vault.transit.key(mount, key) if key else None
    if found is None:
        raise NotFound(f"Vault has no transit key {key!a} at {mount}", hint="correct the credential's key and mount")
    return found


def _plan(ctx: Context, params: TransitParams) -> Plan:
    mount, key = _place(ctx, params)
    facts = _key(ctx, mount, key)
    lowest, latest = facts["decrypts_from"], facts["latest"]
    versions = f"version {latest}" if lowest == latest else f"versions {lowest} to {latest}"
    return Plan(
        changes=(
            f"- {mount}/{key}: {versions} for decrypting, verifying, encrypting and signing",
            f"+ {mount}/{key}: version {latest + 1}, and none before it",
        ),
        checks=(
            f"DATA: what is encrypted with {versions} can be read by nobody until this is undone or it is rewrapped",
            "how much data that is, Vault does not know",
            f"signatures and HMACs made with {versions} will not verify",
            *(("the key is exportable: whoever exported it needs no Vault to decrypt",) if facts["exportable"] else ()),
        ),
    )


def _capture(ctx: Context, params: TransitParams) -> Record:
    mount, key = _place(ctx, params)
    transit, captured = ctx.world.vault.transit, {"mount": mount, "key": key, **_key(ctx, mount, key)}
    try:
        # Made and tried now, for the proof: nothing else that was made with the old version is ours to try.
        probe = transit.probe(mount, key)
        taken, answer = transit.takes(mount, key, probe)
    except Refused as error:
        return {**captured, "probe": "", "worked_before": None, "answer_before": error.message}
    return {**captured, "probe": probe, "worked_before": taken, "answer_before": answer}


def _apply(ctx: Context, params: TransitParams, captured: Record) -> Record:
    del params
    transit, mount, key = ctx.world.vault.transit, captured["mount"], captured["key"]
    if _key(ctx, mount, key)["latest"] == captured["latest"]:
        transit.rotate(mount, key)
    facts = _key(ctx, mount, key)
    minimum = facts["latest"]
    transit.set_minimum(mount, key, decrypts_from=minimum, encrypts_from=max(minimum, facts["encrypts_from"]))
    return {"minimum": minimum}


def _verify(ctx: Context, params: TransitParams, captured: Record, outcome: Record) -> Verification:
    del params
    transit, mount, key = ctx.world.vault.transit, captured["mount"], captured["key"]
    facts, minimum, missing = _key(ctx, mount, key), outcome["minimum"], []
    limited = facts["decrypts_from"] >= minimum > captured["latest"] and facts["encrypts_from"] >= minimum
    said = [f"{mount}/{key} takes versions from {facts['decrypts_from']}, and makes them from {facts['encrypts_from']}"]
    refused = works = True
    if captured["worked_before"]:
        taken, answer = transit.takes(mount, key, captured["probe"])
        works, new_answer = transit.takes(mount, key, transit.probe(mount, key))
        refused = not taken
        said += [
            f"made with version {captured['latest']} before: {'TAKEN' if taken else 'refused'} ({answer})",
            f"made anew: {'taken' if works else 'REFUSED'} ({new_answer})",
        ]
    else:
        missing.append(f"nothing made with an old version was tried: {captured['answer_before']}")
    if facts["exportable"]:
        missing.append("the key is exportable, and who exported it needs no Vault")
    verified = limited and refused and works
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*said, *missing]),
        details={"minimum": minimum, "missing": missing},
    )


def _recheck(ctx: Context, params: TransitParams, captured: Record, outcome: Record) -> Verification:
    del params
    facts = _key(ctx, captured["mount"], captured["key"])
    lowest = facts["decrypts_from"]
    return rechecked(
        holds=lowest >= outcome["minimum"], proof=f"{captured['mount']}/{captured['key']} takes versions from {lowest}"
    )


def _revert(ctx: Context, params: TransitParams, captured: Record) -> None:
    del params
    ctx.world.vault.transit.set_minimum(
        captured["mount"],
        captured["key"],
        decrypts_from=captured["decrypts_from"],
        encrypts_from=captured["encrypts_from"],
    )


def _verify_reverted(ctx: Context, params: TransitParams, captured: Record) -> Verification:
    del params
    mount, key = captured["mount"], captured["key"]
    facts = _key(ctx, mount, key)
    same = all(facts[limit] == captured[limit] for limit in ("decrypts_from", "encrypts_from"))
    said, taken, missing = [f"{mount}/{key} takes versions from {facts['decrypts_from']} again"], True, []
    if captured["worked_before"]:
        taken, answer = ctx.world.vault.transit.takes(mount, key, captured["probe"])
        said.append(f"made with version {captured['latest']} before: {'taken' if taken else 'REFUSED'} ({answer})")
    else:
        missing.append("nothing made with an old version was tried")
    if not same:
        said[0] = f"{mount}/{key} takes versions from {facts['decrypts_from']}, NOT from {captured['decrypts_from']}"
    seen = same and taken
    return Verification(
        verified=seen,
        enforcement=enforcement(verified=seen, missing=tuple(missing)),
        proof="; ".join([*said, *missing]),
    )


ACTION: Action[TransitParams] = Action(
    id="vault.raise-transit-minimum",
    summary="Rotate a transit key and refuse what was encrypted or signed with its older versions.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset(
        {
            "vault:transit/keys/+",
            "vault:transit/keys/+/config",
            "vault:transit/keys/+/rotate",
            "vault:transit/decrypt/+",
            "vault:transit/encrypt/+",
            "vault:transit/hmac/+",
            "vault:transit/sign/+",
            "vault:transit/verify/+",
        }
    ),
    scope="one transit key, and everything that was encrypted or signed with it",
    openc2="update",
    d3fend="D3-CRO",
    consent=True,
    params=TransitParams,
    key=lambda params: f"{params.agent}/{params.name or f'{params.mount}/{params.key}'}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
