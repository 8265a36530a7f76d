"""Report how complex a policy is, and which of its rules do the work: what a person needs to make it decide faster."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import Any

import yaml
from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import HOUR_NS, MOST, amiss, began_ns, cut, read, until_now
from clawback.errors import InvalidInput
from clawback.model import Enforcement, HttpActivity, Lifecycle, NetworkActivity, Phase, Source

__all__ = ["ACTION", "ComplexityParams", "rules_of"]

_LISTS = ("domain", "ports", "methods", "paths")


class ComplexityParams(Params):
    """The policy whose decisions are slow. `version` 0 is the one in force."""

    policy: str = Field(min_length=1, max_length=128)
    version: int = Field(0, ge=0)


def rules_of(text: str) -> list[dict[str, Any]]:
    """Each egress rule of a policy file, in the order of trying, as `{name, kind, patterns, wild, looks}`.

    `patterns` is how many values a request is compared with, `wild` how many of them are wildcards, and `looks` whether
    more than host and port must be known for it.
    """
    try:
        return _rules_of([x for x in yaml.safe_load_all(text) if isinstance(x, dict)])
    except yaml.YAMLError:
        raise InvalidInput("the policy's text is not YAML", hint="clawback policy check FILE") from None
    except (AttributeError, TypeError):  # a list where a mapping belongs, or the other way round
        raise InvalidInput("the policy's text is YAML and no policy", hint="clawback policy check FILE") from None


def _rules_of(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for document in documents:
        egress = (document.get("networkPolicy") or {}).get("egress") or {}
        for kind in ("deny", "allow"):  # the engine's order
            found += [_rule(rule, kind, number) for number, rule in enumerate(egress.get(kind) or (), 1)]
        for name, rule in (document.get("network_policies") or {}).items():
            found += [_endpoint(str(name), endpoint) for endpoint in (rule or {}).get("endpoints") or ()]
    return found


def _rule(rule: dict[str, Any], kind: str, number: int) -> dict[str, Any]:
    values = [str(x) for key in _LISTS for x in _list(rule.get(key))]
    name = str(rule.get("name") or f"{kind}-{number}:{rule.get('domain')}")
    return {
        "name": cut(name),
        "kind": kind,
        "patterns": len(values),
        "wild": sum("*" in x for x in values),
        "looks": bool(rule.get("methods") or rule.get("paths")),
    }


def _endpoint(name: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    matchers = [*_list(endpoint.get("rules")), *_list(endpoint.get("deny_rules"))]
    text = yaml.safe_dump([endpoint.get("host"), endpoint.get("path"), matchers])
    return {
        "name": cut(name),
        "kind": "endpoint",
        "patterns": 1 + len(matchers),
        "wild": text.count("*"),
        "looks": endpoint.get("protocol") not in (None, "", "tcp"),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _report(ctx: Context, params: ComplexityParams) -> dict[str, Any]:
    policies = ctx.world.policies
    version = params.version or policies.active(params.policy).version
    text = policies.read(params.policy, version)
    rules, since, until = rules_of(text), began_ns(ctx, 24 * HOUR_NS), until_now()
    hits: Counter[str] = Counter()
    unmatched = decisions = slow = 0
    worst = 0.0
    sighted = read(ctx, Source.POLICY, since, until_ns=until, policy=params.policy)
    for event in sighted.events:
        if isinstance(event, Lifecycle) and event.component == "policy-engine":
            decisions, slow, worst = decisions + event.decisions, slow + event.slow, max(worst, event.p99_ms)
        elif isinstance(event, (HttpActivity, NetworkActivity)):
            hits[cut(event.rule)] += 1
            unmatched += not event.rule
    for rule in rules:
        rule["decisions"] = hits[rule["name"]]
    costly = sorted(rules, key=lambda rule: (-(rule["wild"] * 4 + rule["patterns"]), rule["name"]))
    return {
        "policy": params.policy,
        "version": version,
        "sha256": sha256(text.encode()).hexdigest(),
        "bytes": len(text.encode()),
        "rules": len(rules),
        "patterns": sum(rule["patterns"] for rule in rules),
        "wildcards": sum(rule["wild"] for rule in rules),
        "read_content": sum(rule["looks"] for rule in rules),
        "since_ns": since,
        "until_ns": until,
        "events": len(sighted.events),
        "complete": sighted.complete,
        "unmatched": unmatched,
        "decisions": decisions,
        "slow": slow,
        "worst_p99_ms": worst,
        "costliest": costly[:MOST],
        "never_used": [rule["name"] for rule in rules if not rule["decisions"]][:MOST],
        "suggestions": _suggestions(rules),
    }


def _suggestions(rules: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    unused = sum(not rule["decisions"] for rule in rules)
    if rules and unused:
        lines.append(f"{unused} of {len(rules)} rules decided nothing in a day: remove those that nobody needs")
    used = sorted(rules, key=lambda rule: -rule["decisions"])
    if used and used[0]["decisions"] and rules.index(used[0]) > len(rules) // 2:
        lines.append(f"{used[0]['name']} decides most and is tried late: put it first among its kind")
    wild = [rule["name"] for rule in rules if rule["wild"] > 8]
    if wild:
        lines.append(f"many wildcards: {', '.join(wild[:5])}: name the hosts and paths, or split the rule")
    return lines or ["the rules look cheap: look for a busy machine, or for large bodies that rules make it read"]


def _verify(ctx: Context, params: ComplexityParams, _captured: Record, outcome: Record) -> Verification:
    """It is about the text that decides: read again, counted again, and hashed as the engine's list of versions says.

    Where none was named, that version is still the one in force, which is the newest. The record reads the same again:
    a rule that somebody needs must not be called unused because nobody could read that it was used.
    """
    number, policies = int(outcome["version"]), ctx.world.policies
    text, active = policies.read(params.policy, number), policies.active(params.policy).version
    versions = {x.version: x.sha256 for x in policies.versions(params.policy)}
    until = int(outcome["until_ns"])
    again = read(ctx, Source.POLICY, int(outcome["since_ns"]), until_ns=until, policy=params.policy).events
    wrong = amiss(int(outcome["events"]), again, until)
    hashed = sha256(text.encode()).hexdigest()
    same = hashed == outcome["sha256"] == versions.get(number) and len(rules_of(text)) == outcome["rules"]
    meant = same and (params.version == number or number == active == max(versions))
    return Verification(
        verified=meant and not wrong,
        enforcement=Enforcement.NONE
        if not meant or wrong
        else Enforcement.FULL
        if outcome["complete"]
        else Enforcement.PARTIAL,
        proof=f"version {outcome['version']} has {outcome['rules']} rules with {outcome['patterns']} patterns, "
        f"{outcome['wildcards']} of them wildcards; {outcome['slow']} of {outcome['decisions']} decisions were slow, "
        f"p99 {outcome['worst_p99_ms']:g} ms at worst; {len(outcome['never_used'])} rules decided nothing"
        + ("" if outcome["complete"] else "; there is more on record than was read: decisions are of the newest alone")
        + ("" if active == number == max(versions, default=0) else f"; version {active} of {len(versions)} is in force")
        + (f"; {wrong}" if wrong else "")
        + ("" if same else "; the text is not the one that was counted, or not that version's"),
    )


def _plan(ctx: Context, params: ComplexityParams) -> Plan:
    active = ctx.world.policies.active(params.policy)
    return Plan(changes=(), checks=(f"version {active.version} of {params.policy} is in force",))


ACTION = Action(
    id="policy.complexity",
    summary="Report a policy's rules, what they cost, and which of them decide.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"policies:read", "policies:active", "policies:versions", "telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=ComplexityParams,
    key=lambda params: f"{params.policy}:{params.version}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda ctx, params, _captured: _report(ctx, params),
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
