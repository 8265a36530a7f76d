"""What the stages of a release share: observe-only, restricted, full.

While its release is staged an agent runs under a policy of its own, a narrower copy of the one that it had: what holds
it back holds no other agent back that runs under that policy. Each stage is a version of the copy, with its author, its
reason and the incident; the last version of all denies everything, so that nothing can be started by the copy again.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from clawback.action import Context, Record
from clawback.actions._rogue import answers_for, rogue_calls_of
from clawback.errors import NotEnforced, NotFound, Refused, Unreachable
from clawback.model import (
    AgentInfo,
    AgentState,
    Attempt,
    Draft,
    Enforcement,
    Event,
    HttpActivity,
    Narrowing,
    NetworkActivity,
    PolicyVersion,
    staged_from,
    staged_name,
)
from clawback.reports.escape import plain, source

__all__ = [
    "NOTHING",
    "base_of",
    "calls_of",
    "close",
    "decides_by",
    "diff_of",
    "known_good",
    "layers_before",
    "not_as_started",
    "of_use",
    "put",
    "rogue",
    "seen_denied",
    "staged",
    "still_allowed",
]

_RANK = {Enforcement.NONE: 0, Enforcement.PARTIAL: 1, Enforcement.FULL: 2}
_HOUR_NS = 3_600 * 1_000_000_000
_MOST_CALLS = 4_000
_MOST_ASKED = 64
_MOST_TRIED = 6  # each takes its share of an agent that has little processor time
_LONGEST_NAME = 63
_LONGEST_LINE = 400
_ELSEWHERE = Attempt(kind="connect", target="clawback-check.invalid:443")  # RFC 2606: never a real host
NOTHING = Narrowing(keep=(), drop=True)


def base_of(info: AgentInfo) -> str:
    """The policy that the agent runs under, or that its stage was made from."""
    return staged_from(info.policy) or info.policy


def known_good(ctx: Context, agent: str, policy: str) -> PolicyVersion:
    """The active version. `Refused` unless its text is one that was marked known-good."""
    active = ctx.world.policies.active(policy)
    if not any(x.known_good and x.sha256 == active.sha256 for x in ctx.world.policies.versions(policy)):
        raise Refused(
            f"{agent} is not relaunched: version {active.version} of policy {policy} is not known to be good",
            hint="run policy.restore first, or mark the version after reviewing it",
        )
    return active


def staged(policy: str, agent: str) -> str:
    """The name of the agent's own copy. `Refused` where the policy's name leaves no room for it."""
    name = staged_name(policy, agent)
    if len(name) > _LONGEST_NAME:
        room = _LONGEST_NAME - (len(name) - len(policy))
        raise Refused(
            f"the release of {agent} cannot be staged: the name {policy} is longer than {room} characters",
            hint="agent.relaunch starts it without stages; a shorter name for the policy mends it",
        )
    return name


def rogue(ctx: Context, agent: str) -> tuple[Attempt, ...]:
    """What of the rogue calls goes by the gateway, as many as are tried and denied by name."""
    return tuple(call for call in rogue_calls_of(ctx, agent) if call.kind in ("http", "connect"))[:_MOST_CALLS]


def calls_of(events: tuple[Event, ...], *, blocked: bool = False) -> tuple[Attempt, ...]:
    """The calls that were let through, or refused, each once, in the order in which they were first made."""
    found: dict[Attempt, None] = {}
    for event in events:
        if event.blocked != blocked:
            continue
        if isinstance(event, HttpActivity):
            host = f"[{event.host}]" if ":" in event.host else event.host
            found[Attempt(kind="http", target=f"{event.method} http://{host}:{event.port}{event.path}")] = None
        elif isinstance(event, NetworkActivity) and event.activity_id in (NetworkActivity.OPEN, NetworkActivity.REFUSE):
            found[Attempt(kind="connect", target=f"{event.host}:{event.port}")] = None
        if len(found) >= _MOST_CALLS:
            break
    return tuple(found)


def of_use(ctx: Context, *, agent: str = "", policy: str = "") -> tuple[tuple[Attempt, ...], bool]:
    """Calls that were let through before the first event of the incident, or of one that it answers for, but for the
    rogue ones; and whether all of the time that is looked back on could be read.
    """
    whose = agent or ctx.incident.agent
    about = (ctx.incident, *answers_for(ctx, whose))
    first = min(min((x.time_ns for x in one.findings), default=one.opened_ns) for one in about)
    since = max(0, first - int(ctx.world.recovery.look_back_hours * _HOUR_NS))
    sighted = ctx.world.telemetry.events(agent=agent, policy=policy, since_ns=since, until_ns=first)
    bad = set(rogue(ctx, whose))
    return tuple(call for call in calls_of(sighted.events) if call not in bad), sighted.complete


def decides_by(ctx: Context, policy: str, expected: str) -> str:
    """Empty where the engine decides by the text with this hash; else what it decides by."""
    active = ctx.world.policies.active(policy)
    text = sha256(ctx.world.policies.read(policy, active.version).encode()).hexdigest()
    if active.sha256 == expected == text:
        return ""
    return f"the engine decides by {policy} version {active.version} ({text[:12]}), which is not the stage's"


def still_allowed(ctx: Context, policy: str, agent: str, base: str) -> list[Attempt]:
    """Of the rogue calls and those of use, as many as are asked about, what the engine would let through by a policy
    that is to allow nothing. It is asked as it decides, not what it would draft. Without telemetry: the rogue ones.
    """
    try:
        use, _ = of_use(ctx, agent=agent, policy=base)
    except Unreachable:
        use = ()
    calls = (*rogue(ctx, agent)[:_MOST_ASKED], *use[:_MOST_ASKED])
    return [call for call in calls if ctx.world.policies.decide(policy, call).allowed]


def seen_denied(ctx: Context, agent: str, calls: tuple[Attempt, ...]) -> tuple[int, list[str]]:
    """These calls, as many as are tried at once, and one that no policy can allow, tried from inside the agent's
    sandbox: how many were denied, and those that were not, in words.
    """
    calls = (*calls[:_MOST_TRIED], _ELSEWHERE)
    try:
        tried = ctx.world.core.attempt(agent, calls)
    except (NotEnforced, NotFound):
        if ctx.world.core.agent(agent).state is AgentState.RUNNING:
            raise
        return 0, []  # it ended meanwhile: there is nothing to try in
    results = {(x.attempt.kind, x.attempt.target): x for x in tried}
    wrong = []
    for call in calls:
        answer = results.get((call.kind, call.target))
        if answer is None or not answer.denied:
            said = plain(answer.detail, 120) if answer else "no answer"
            wrong.append(f"NOT denied: {call.kind} {plain(call.target, 120)} → {said}")
    return len(calls) - len(wrong), wrong


def not_as_started(
    ctx: Context, info: AgentInfo, captured: Record, outcome: Record, *, may_fail: bool = False
) -> list[str]:
    """What of a relaunched agent is not as it was started, or weaker than before, in words.

    `may_fail`: it may have ended with an error, as programs do that are denied everything.
    """
    stored = {(ref.kind, ref.name): ref.identifiers for ref in ctx.world.secrets.refs(info.agent)}
    wrong: list[str] = []
    if info.instance == captured["instance"] or info.instance != outcome["instance"]:
        wrong.append(f"instance {info.instance} is there, which is not the one that was started")
    if info.state is AgentState.LOST or (info.state is AgentState.EXITED and info.exit_status != 0 and not may_fail):
        wrong.append(f"it is {info.state.value}, exit status {info.exit_status}")
    if (info.policy, info.policy_version) != (outcome["policy"], outcome["policy_version"]):
        wrong.append(
            f"it runs under policy {info.policy} version {info.policy_version}, "
            f"not {outcome['policy']} {outcome['policy_version']}"
        )
    for name, before in captured["layers"].items():
        now = info.layers.get(name, Enforcement.NONE)
        if _RANK[now] < _RANK[Enforcement(before)]:
            wrong.append(f"layer {name} is {now.value}, was {before}")
    wrong.extend(
        f"credential {ref.name} is not the one in the store"
        for ref in info.credentials
        if stored.get((ref.kind, ref.name), ref.identifiers) != ref.identifiers
    )
    return wrong


def layers_before(ctx: Context, info: AgentInfo) -> dict[str, str]:
    """How much each protection held before the release was staged: a stage may add a limit that the policy has not."""
    if staged_from(info.policy) is not None:
        for receipt in reversed(ctx.incident.receipts):
            if receipt.action == "release.observe-only" and "layers" in receipt.captured:
                return dict(receipt.captured["layers"])
    return {name: value.value for name, value in info.layers.items() if name != "cpu" or info.policy == base_of(info)}


def diff_of(draft: Draft) -> tuple[str, ...]:
    """The lines of its difference; hosts and paths in them are an agent's words."""
    return tuple(source(line, _LONGEST_LINE) for line in draft.diff.splitlines())


def put(ctx: Context, policy: str, text: str, reason: str) -> PolicyVersion:
    """Have a text in force; `sha256` of what is returned is that text's, whatever the engine answered."""
    said = ctx.world.policies.put(policy, text, author=ctx.actor, reason=reason[:500], incident=ctx.incident.id)
    return replace(said, sha256=sha256(text.encode()).hexdigest())


def close(ctx: Context, agent: str, policy: str, reason: str) -> PolicyVersion:
    """Make the agent's copy of the policy deny everything: the version that does. `NotFound` where there is no copy."""
    name = staged_name(policy, agent)
    active = ctx.world.policies.active(name)
    draft = ctx.world.policies.draft(name, active.version, NOTHING)
    return put(ctx, name, draft.text, reason)
