"""Reads `spec.isolation.syscalls`: a profile's name, lists of what is allowed, denied and escalated, or a container
runtime's seccomp profile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat

from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.decisions import OPERATORS, decisions
from clawback.enforcement.policy.escalation import EscalationRule, refusal
from clawback.enforcement.policy.floor import check_floor
from clawback.enforcement.policy.nodes import MAX_BYTES, Item, documents, shown
from clawback.enforcement.policy.paths import path_of
from clawback.enforcement.policy.seccomp_profile import argument_tests, known_call, seccomp_profile
from clawback.enforcement.policy.types import Effect
from clawback.enforcement.sandbox.filters import ALLOWED, BLOCKED
from clawback.errors import InvalidInput

__all__ = ["syscalls"]

_LISTS = ("base", "deny", "escalate", "allow", "decide")
_HEX = re.compile(r"[0-9a-f]{64}")
_HOW = {
    "default": "seccomp: OpenShell's blocked set is refused",
    "minimal": "seccomp: an allow-list; all else is refused",
    "none": "seccomp: only what `allow` lists",
}
_DONE = {
    "deny": "seccomp refuses {}",
    "escalate": "seccomp holds {} until the supervisor decides; without it they fail",
    "allow": "seccomp lets {} through",
}
_Rule = tuple[str, Item, CallRule]


Read = tuple[SyscallPolicy, tuple[EscalationRule, ...]]


def syscalls(item: Item, effects: list[Effect]) -> Read:
    """The policy, and what of the escalated is decided already; what comes of each key is added to `effects`."""
    if item.is_text:
        base = item.one_of(("default", "minimal"))
        effects.append(Effect(item.key, "kernel", _HOW[base]))
        return SyscallPolicy(base=base), ()
    keys = item.keys()
    if "profileFile" in keys:
        return _from_file(item, effects), ()
    if "profile" in keys:
        return seccomp_profile(item.mapping(("profile",))["profile"], effects), ()
    return _lists(item, effects)


def _from_file(item: Item, effects: list[Effect]) -> SyscallPolicy:
    """A profile that lies beside the policy. Its hash stands in the policy: what was reviewed is what counts."""
    found = item.mapping(("profileFile", "sha256"), required=("profileFile", "sha256"))
    place = found["profileFile"]
    path, digest = path_of(place), found["sha256"].text(limit=64)
    if not _HEX.fullmatch(digest):
        raise found["sha256"].wrong("not a SHA-256", hint=f"the first word that `sha256sum {path}` prints")
    try:
        raw = _read(path)
    except OSError as error:
        raise place.wrong(
            f"{path}: {error.strerror}", hint="name a file that the core and the gateway can read"
        ) from None
    if hashlib.sha256(raw).hexdigest() != digest:
        # Nothing of the file is looked at before, for its reader may have more rights than the policy's author.
        raise found["sha256"].wrong(
            f"{path} is another file", hint=f"review it, then write what `sha256sum {path}` prints"
        )
    try:
        roots = documents(raw, where=path)[1]
    except InvalidInput as error:
        raise place.wrong(error.message, hint=error.hint) from None
    if len(roots) != 1:
        raise place.wrong(f"{path} has {len(roots)} documents", hint="one profile in a file")
    return seccomp_profile(roots[0], effects)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"more than {MAX_BYTES} bytes")
    return raw


def _lists(item: Item, effects: list[Effect]) -> Read:
    """Denied wins over escalated, and that over allowed."""
    found = item.mapping(_LISTS)
    base = found["base"].one_of(tuple(_HOW)) if "base" in found else "default"
    effects.append(Effect(f"{item.key}.base", "kernel", _HOW[base]))
    rules: list[_Rule] = []
    for key, action in (("deny", CallAction.DENY), ("escalate", CallAction.ESCALATE), ("allow", CallAction.ALLOW)):
        if key in found:
            rules += [(key, entry, _rule(entry, action)) for entry in found[key].list(limit=512)]
    if base == "none" and "allow" not in found:
        raise item.wrong("base none allows nothing", hint="list what is allowed, or take minimal")
    also = _opened(rules, base)
    kept = [rule for key, _, rule in rules if key != "allow" or base == "none"]
    policy = SyscallPolicy(
        base="default" if base == "none" else base,
        also=also,
        rules=tuple(kept),
        otherwise=CallAction.DENY if base == "none" else CallAction.ALLOW,
    )
    check_floor(item, policy)
    for key, how in _DONE.items():
        names = sorted({name for kind, _, rule in rules if kind == key for name in rule.names})
        if names:
            listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            effects.append(Effect(f"{item.key}.{key}", "kernel", how.format(listed)))
    escalated = frozenset(name for key, _, rule in rules if key == "escalate" for name in rule.names)
    decided = decisions(found["decide"], escalated) if "decide" in found else ()
    if decided:
        effects.append(
            Effect(f"{item.key}.decide", "supervisor", "the first rule that matches; else a person is asked")
        )
    return policy, decided


def _rule(entry: Item, action: CallAction) -> CallRule:
    if entry.is_text:
        return CallRule(names=(_call(entry),), action=action)
    found = entry.mapping(("names", "args", "errno"), required=("names",))
    names = tuple(map(_call, found["names"].list(limit=512)))
    if not names:
        raise found["names"].wrong("no names: the rule would match nothing, or all", hint="name the calls")
    code: int = errno.EPERM
    if "errno" in found:
        word = found["errno"].text(limit=20)
        numbers = {name: number for number, name in errno.errorcode.items()}
        if action is not CallAction.DENY or word not in numbers:
            raise found["errno"].wrong(f"{shown(word)} is not an errno of a denial", hint="such as EPERM or ENOSYS")
        code = numbers[word]
    tests = argument_tests(found["args"], OPERATORS) if "args" in found else ()
    return CallRule(names=names, action=action, errno=code, tests=tests)


def _call(entry: Item) -> str:
    name = entry.text(limit=64)
    if not known_call(name):
        raise entry.wrong(f"{shown(name)} is not a system call", hint="see `man 2 syscalls`")
    return name


def _opened(rules: list[_Rule], base: str) -> tuple[str, ...]:
    """What `allow` and `escalate` add to the minimal list."""
    also = []
    for key, entry, rule in rules:
        for name in rule.names if key != "deny" else ():
            if name in BLOCKED:
                raise entry.wrong(
                    f"{name} is what containment could be left by: no policy opens it", hint="take it out"
                )
            if key == "escalate" and (why := refusal(name)):
                raise entry.wrong(f"{name} cannot be escalated", hint=why)
            if base == "minimal" and name not in ALLOWED:
                if rule.tests and key == "allow":
                    raise entry.wrong("tests beside what minimal adds", hint="take base none, or leave args out")
                also.append(name)
    return tuple(dict.fromkeys(also))
