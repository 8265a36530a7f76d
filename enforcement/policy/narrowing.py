"""Makes a policy's text narrower, in whichever form it is written: denies by name, and lets allowing rules shrink.

What comes out is a text that the loader takes, as close to what somebody wrote as it can be. It never allows what the
text before it did not: rules lose hosts, ports, methods and paths, and none is added that allows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from clawback.enforcement.policy.asked import Asked, asked, says
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.narrow_egress import narrow_egress
from clawback.enforcement.policy.narrow_openshell import narrow_openshell
from clawback.enforcement.policy.roundtrip import Source
from clawback.enforcement.policy.types import PolicyFile
from clawback.enforcement.policy.wishes import Wishes
from clawback.errors import InvalidInput
from clawback.model import Attempt, Decision, Draft, Narrowing

__all__ = ["draft", "narrow"]

_LEAST_PROCESSES = 16
_LEAST_CPU = 0.1


@dataclass(slots=True)
class Narrowed:
    """The text, what was changed and what could not be, in words."""

    text: str
    changes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def narrow(text: str, narrowing: Narrowing, *, where: str) -> Narrowed:
    """The text as narrow as is asked. `InvalidInput` for a text that is no policy, or a share out of bounds."""
    if not 0 < narrowing.share <= 1:
        raise InvalidInput(f"share {narrowing.share}: not above 0 and at most 1", hint="0.5 is half of what is granted")
    policy = load(text, where=where)
    source = Source(text, where=where)
    wishes = _wishes(narrowing)
    if policy.form in ("OpenShell version 1", "NemoClaw preset"):
        narrow_openshell(source.documents[0], policy.network, wishes)
    elif policy.form == "SandboxPolicy":
        narrow_egress(source.documents, policy, wishes)
    else:
        wishes.left.append(f"a {policy.form} says nothing of the network: no call is allowed by it")
    _files(source.documents, wishes)
    _resources(source.documents, policy, wishes, narrowing.share)
    after = source.render() if wishes.changes else text
    load(after, where=where)
    return Narrowed(after, wishes.changes, wishes.left)


def draft(policy: str, version: int, text: str, narrowing: Narrowing, attempts: tuple[Attempt, ...]) -> Draft:
    """The same as a `Draft`, with what the engine would say to `attempts`."""
    made = narrow(text, narrowing, where=f"policy {policy} version {version}")
    network = load(made.text, where=f"draft of {policy}").network
    return Draft(
        policy=policy,
        version=version,
        text=made.text,
        sha256=sha256(made.text.encode()).hexdigest(),
        diff="".join(
            line if line.endswith("\n") else line + "\n"
            for line in difflib.unified_diff(
                text.splitlines(keepends=True), made.text.splitlines(keepends=True), f"version {version}", "draft"
            )
        ),
        changes=tuple(made.changes),
        left=tuple(made.left),
        decisions=tuple(_decision(policy, version, lambda one=one: says(network, asked(one))) for one in attempts),  # type: ignore[misc]  # mypy infers no type for a lambda's default
    )


def _decision(policy: str, version: int, call: Callable[[], Any]) -> Decision:
    try:
        verdict = call()
    except InvalidInput as error:
        return Decision(allowed=False, rule="", reason=error.message, policy=policy, policy_version=version)
    return Decision(
        allowed=verdict.allowed,
        rule=verdict.rule,
        reason=verdict.reason,
        policy=policy,
        policy_version=version,
        level=verdict.level,
        inspect=verdict.inspect,
        audit=verdict.audit,
    )


def _wishes(narrowing: Narrowing) -> Wishes:
    wishes = Wishes(drop=narrowing.drop)
    for attempt in narrowing.deny:
        if attempt.kind == "open":
            wishes.files.append(attempt.target)
        elif attempt.kind in ("http", "connect"):
            try:
                wishes.deny.append(asked(attempt))
            except InvalidInput as error:
                wishes.left.append(error.message)
        else:
            wishes.left.append(f"{attempt.kind} {attempt.target[:80]!a}: no rule of a policy names it")
    if narrowing.keep is not None:
        kept: dict[Asked, None] = {}
        for attempt in narrowing.keep:
            try:
                kept[asked(attempt)] = None
            except InvalidInput as error:
                wishes.left.append(error.message)
        wishes.keep = list(kept)
    return wishes


def _files(documents: list[Any], wishes: Wishes) -> None:
    """Paths that were opened and should not have been are no longer shown, where the policy names them."""
    sections = [
        section
        for document in documents
        for section in (
            (document.get("spec") or {}).get("filesystem") if isinstance(document.get("spec"), dict) else None,
            document.get("filesystem_policy"),
        )
        if isinstance(section, dict)
    ]
    for path in dict.fromkeys(wishes.files):
        found = False
        for section in sections:
            for key, listed in section.items():
                if not isinstance(listed, list):
                    continue
                for number in reversed(range(len(listed))):
                    shown = str(listed[number]).rstrip("/")
                    if shown == path.rstrip("/"):
                        del listed[number]
                        found = True
                        wishes.changes.append(f"{key}: {path} is no longer shown")
                    elif path.startswith(shown + "/"):
                        found = True
                        wishes.left.append(f"{key}: {shown} stays, and {path[:120]!a} below it")
        if not found:
            wishes.left.append(f"open {path[:120]!a}: the policy does not show it, there is nothing to take away")


def _resources(documents: list[Any], policy: PolicyFile, wishes: Wishes, share: float) -> None:
    """Processor time and processes; not memory: the agent would be killed for what it uses already."""
    if share == 1:
        return
    spec = next((x["spec"] for x in documents if isinstance(x.get("spec"), dict)), None)
    if spec is None:
        wishes.left.append("resources: this form of policy has none to lower")
        return
    if not isinstance(spec.get("resources"), dict):
        spec["resources"] = {}
    sandbox, resources = policy.sandbox, spec["resources"]
    cpu = round(max(_LEAST_CPU, (sandbox.max_cpu or 1.0) * share), 3)
    processes = max(_LEAST_PROCESSES, int((sandbox.max_processes or 256) * share))
    resources["maxCPU"] = cpu
    resources["maxProcesses"] = min(processes, sandbox.max_processes or processes)
    wishes.changes.append(f"resources: {cpu} processors, {resources['maxProcesses']} processes")
