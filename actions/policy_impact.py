"""Say whom a widened policy concerns, and whether anybody used what it should not have allowed.

Use is seen in the record: calls that were allowed by a rule which the known-good version does not have like this. An
agent that merely ran under the policy did no wrong, and is not named as one that did.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import MOST, SETTLED_NS, cut, of_kind, read, until_now
from clawback.errors import NotFound
from clawback.model import (
    AgentInfo,
    Enforcement,
    HttpActivity,
    NetworkActivity,
    Phase,
    PolicyChange,
    PolicyVersion,
    Source,
)
from clawback.reports.escape import plain

__all__ = ["ACTION", "ImpactParams"]

# As `enforcement.policy.width` writes them. A name may have a colon in it (`allow-1:*.partner.test`), and no space
# after that.
_RULE = re.compile(r"(?:allow|new rule) (.+?): |changed rule (.+)")
_UNDENIED = re.compile(r"no longer denied: .+?: ([^;]+)")
_MORE = re.compile(r"and \d+ more")


class ImpactParams(Params):
    """The policy, and the version that is wider than the known-good one.

    `stage`: `found`, to hold whom it names, or `mended`, for the record.
    """

    policy: str = Field(min_length=1, max_length=128)
    version: int = Field(ge=1)
    stage: str = Field("found", pattern=r"^(found|mended)$")


def _versions(ctx: Context, params: ImpactParams) -> tuple[PolicyVersion, PolicyVersion]:
    """The wide one, and the newest known-good one before it. `NotFound`."""
    versions = ctx.world.policies.versions(params.policy)
    wide = next((x for x in versions if x.version == params.version), None)
    good = [x for x in versions if x.known_good and x.version < params.version]
    if wide is None or not good:
        raise NotFound(
            f"policy {params.policy} has no version {params.version} with a known-good one before it",
            hint=f"clawback policy list {params.policy}",
        )
    return wide, good[-1]


def _widened(ctx: Context, params: ImpactParams, since_ns: int) -> tuple[str, ...]:
    """The gateway's comparison, written when the version came into force. `NotFound` where it is not on record."""
    for event in of_kind(ctx, PolicyChange, Source.POLICY, since_ns):
        if (event.policy, event.policy_version) == (params.policy, params.version) and not event.blocked:
            return event.widened
    raise NotFound(f"how version {params.version} of {params.policy} differs is not in the telemetry any more")


def _until(params: ImpactParams) -> int:
    """What has only just happened is the detectors' to answer, which takes them milliseconds; a second incident must
    not hold the same agent beside the first.
    """
    return until_now() - (SETTLED_NS if params.stage == "found" else 0)


def _impact(ctx: Context, params: ImpactParams, until_ns: int) -> dict[str, Any]:
    wide, good = _versions(ctx, params)
    widened = _widened(ctx, params, wide.created_ns)
    rules = {found[1] or found[2] for line in widened if (found := _RULE.match(line))}
    undenied = {found[1] for line in widened if (found := _UNDENIED.match(line))}
    # A line that was cut before its rule's name ended names none, and beyond 32 lines none is written.
    cut_short = [x for x in widened if _MORE.fullmatch(x) or (x.endswith("…") and not _named(x))]
    used: dict[str, set[str]] = defaultdict(set)
    sighted = read(ctx, Source.POLICY, wide.created_ns, until_ns=until_ns, policy=params.policy)
    for event in sighted.events:
        if (event.policy, event.policy_version) != (params.policy, params.version) or event.blocked or not event.agent:
            continue
        if not isinstance(event, (HttpActivity, NetworkActivity)):
            continue
        if event.rule in rules or _below(event.host, undenied):
            path = event.path.partition("?")[0] if isinstance(event, HttpActivity) else ""
            if len(used[event.agent]) < MOST:
                used[event.agent].add(cut(f"{event.host}:{event.port}{path} by rule {event.rule}"))
    listed = ctx.world.core.agents()
    running = [x for x in listed if x.policy == params.policy]
    instances = {x.agent: x.instance for x in running}
    others = {x.agent for x in running if _held_by_others(ctx, x)}
    return {
        "until_ns": until_ns,
        "complete": sighted.complete and not cut_short,
        "policy": params.policy,
        "version": wide.version,
        "author": cut(wide.author),
        "reason": cut(wide.reason),
        "known_good": good.version,
        "widened": list(widened),
        "diff": wide.diff[:8000],
        "agents": sorted(instances)[:MOST],
        "unlisted": sorted(used.keys() - {x.agent for x in listed})[:MOST],
        "harmed": {
            name: {"instance": instances.get(name, ""), "calls": sorted(calls), "held_by_others": name in others}
            for name, calls in sorted(used.items())[:MOST]
        },
    }


def _named(line: str) -> bool:
    return bool(_RULE.match(line) or _UNDENIED.match(line))


def _held_by_others(ctx: Context, info: AgentInfo) -> bool:
    return any(order.incident != ctx.incident.id for order in (info.hold.orders if info.hold else ()))


def _below(host: str, domains: set[str]) -> bool:
    return any(host == x or (x.startswith("*.") and host.endswith(x[1:])) for x in domains)


def _plan(ctx: Context, params: ImpactParams) -> Plan:
    wide, good = _versions(ctx, params)
    return Plan(
        changes=(),
        checks=(f"version {wide.version} by {plain(wide.author)} against known-good version {good.version}",),
    )


def _verify(ctx: Context, params: ImpactParams, _captured: Record, outcome: Record) -> Verification:
    """Drawn again over the same time: whoever is named now was named then, for as much, and the other way round."""
    again = _impact(ctx, params, int(outcome["until_ns"]))
    lost = sorted(set(outcome["harmed"]) - set(again["harmed"]))
    missed = sorted(set(again["harmed"]) - set(outcome["harmed"]) | set(again["agents"]) ^ set(outcome["agents"]))
    shared = set(outcome["harmed"]) & set(again["harmed"])
    other = sorted(x for x in shared if _used(outcome, x) != _used(again, x))
    # The core forgets no agent: one that it does not list could not be held, whatever runs.
    unknown = again["unlisted"]
    if any(outcome[key] != again[key] for key in ("version", "known_good", "widened")):
        other.append(f"policy {params.policy}")
    wrong = bool(lost or missed or other or unknown)
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.PARTIAL if wrong or not outcome["complete"] else Enforcement.FULL,
        proof=f"version {outcome['version']} by {plain(outcome['author'])}: {len(outcome['agents'])} agents "
        f"run under it, {len(outcome['harmed'])} used what version {outcome['known_good']} does not allow"
        + (f": {', '.join(outcome['harmed'])}" if outcome["harmed"] else "")
        + ("" if outcome["complete"] else "; there is more on record, or more was widened, than could be read")
        + (f"; of {', '.join(lost)} the record has nothing any more" if lost else "")
        + (f"; {', '.join(missed)} are named in one and not in the other" if missed else "")
        + (f"; of {', '.join(other)} it says something else by now" if other else "")
        + (f"; {', '.join(unknown)} used it, and the core lists no such agent" if unknown else ""),
    )


def _used(outcome: Record, agent: str) -> tuple[Any, Any]:
    one = outcome["harmed"][agent]
    return one["instance"], one["calls"]


ACTION = Action(
    id="policy.impact",
    summary="Say which agents a widened policy concerns, and which of them used it.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"policies:versions", "policies:read", "telemetry:read", "core:agents"}),
    scope="reads only",
    openc2="investigate",
    params=ImpactParams,
    key=lambda params: f"{params.policy}:{params.version}:{params.stage}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda ctx, params, _captured: _impact(ctx, params, _until(params)),
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
