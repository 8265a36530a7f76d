"""Make the policy engine decide by the last known-good version again, recorded as a new version.

Known-good is what people said before they knew of this incident: rogue calls that this version still allows are named
in the outcome (`still_allows`), for `policy.tighten`.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._policy_away import still_away
from clawback.actions._rogue import rogue_calls
from clawback.errors import NotFound
from clawback.model import Enforcement, Phase, PolicyVersion
from clawback.reports.escape import plain

__all__ = ["ACTION", "RestoreParams"]

_MOST_ASKED = 256
_MOST_NAMED = 20


class RestoreParams(Params):
    """`version` 0 is the newest that is marked known-good."""

    policy: str = Field(min_length=1, max_length=128)
    version: int = Field(0, ge=0)
    reason: str = Field(min_length=1, max_length=500)


def _target(ctx: Context, params: RestoreParams) -> PolicyVersion:
    versions = ctx.world.policies.versions(params.policy)
    if params.version:
        found = next((x for x in versions if x.version == params.version), None)
        if found is None:
            raise NotFound(f"policy {params.policy} has no version {params.version}")
        return found
    good = [x for x in versions if x.known_good]
    if not good:
        raise NotFound(
            f"no version of policy {params.policy} is marked known-good",
            hint="review one and mark it, or name the version to restore",
        )
    return max(good, key=lambda x: x.version)


def _plan(ctx: Context, params: RestoreParams) -> Plan:
    target, active = _target(ctx, params), ctx.world.policies.active(params.policy)
    if target.sha256 == active.sha256:
        return Plan(changes=(), checks=(f"version {active.version} is active and equals version {target.version}",))
    return Plan(
        changes=(
            f"- policy {params.policy}: version {active.version} ({active.sha256[:12]}) by {active.author}",
            f"+ policy {params.policy}: a new version equal to {target.version} ({target.sha256[:12]})",
        ),
        checks=(f"version {target.version} is {'known-good' if target.known_good else 'NOT marked known-good'}",),
    )


def _capture(ctx: Context, params: RestoreParams) -> Record:
    target, active = _target(ctx, params), ctx.world.policies.active(params.policy)
    return {
        "version": active.version,
        "sha256": active.sha256,
        "target_version": target.version,
        "target_sha256": target.sha256,
    }


def _restore(ctx: Context, params: RestoreParams, version: int, reason: str) -> PolicyVersion:
    return ctx.world.policies.restore(params.policy, version, author=ctx.actor, reason=reason, incident=ctx.incident.id)


def _apply(ctx: Context, params: RestoreParams, captured: Record) -> Record:
    new = _restore(ctx, params, captured["target_version"], params.reason)
    calls = [call for call in rogue_calls(ctx.incident) if call.kind in ("http", "connect")][:_MOST_ASKED]
    still = [call for call in calls if ctx.world.policies.decide(params.policy, call).allowed]
    return {
        "version": new.version,
        "sha256": new.sha256,
        "still_allows": [f"{call.kind} {plain(call.target, 120)}" for call in still[:_MOST_NAMED]],
    }


def _active_is(ctx: Context, policy: str, wanted: str, what: str) -> Verification:
    active = ctx.world.policies.active(policy)
    text = sha256(ctx.world.policies.read(policy, active.version).encode()).hexdigest()
    same = active.sha256 == wanted == text
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=f"the engine decides by version {active.version}, whose text hashes to {text[:12]}; "
        f"{what} is {wanted[:12]}" + ("" if text == active.sha256 else f"; the engine says {active.sha256[:12]}"),
        details={"version": active.version, "sha256": text},
    )


def _verify(ctx: Context, params: RestoreParams, captured: Record, _outcome: Record) -> Verification:
    return _active_is(ctx, params.policy, captured["target_sha256"], f"version {captured['target_version']}")


def _recheck(ctx: Context, params: RestoreParams, captured: Record, _outcome: Record) -> Verification | None:
    """Whether what was taken away decides again; a newer policy is its author's business."""
    if captured["sha256"] == captured["target_sha256"]:
        return None
    return still_away(ctx, params.policy, captured, "was taken away")


def _revert(ctx: Context, params: RestoreParams, captured: Record) -> None:
    _restore(ctx, params, captured["version"], f"revert of {ctx.incident.id}")


def _verify_reverted(ctx: Context, params: RestoreParams, captured: Record) -> Verification:
    return _active_is(ctx, params.policy, captured["sha256"], f"version {captured['version']} as it was before")


ACTION = Action(
    id="policy.restore",
    summary="Return the policy to its last known-good version.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"policies:versions", "policies:restore", "policies:active", "policies:decide"}),
    scope="one policy, and thereby every agent that runs under it",
    openc2="restore",
    d3fend="D3-RC",
    params=RestoreParams,
    key=lambda params: f"{params.policy}:{params.version}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
