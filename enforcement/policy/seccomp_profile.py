"""Reads container runtimes' seccomp profiles (Docker's and OCI's JSON) as libseccomp and those runtimes read them.

A rule that says what `defaultAction` says is nothing. Of the others for a call, the first without `args` decides alone;
without such a one those whose `args` hold do, and where they differ (which libseccomp leaves to chance) the strictest.
"""

from __future__ import annotations

import errno
import platform
import re

from clawback.enforcement.kernel.syscalls import FOREIGN, MACHINE, TABLES
from clawback.enforcement.policy.calls import ArgumentTest, CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.floor import check_floor
from clawback.enforcement.policy.nodes import Item, shown
from clawback.enforcement.policy.types import Effect

__all__ = ["argument_tests", "known_call", "seccomp_profile"]

_ACTIONS = {
    "SCMP_ACT_KILL": CallAction.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": CallAction.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": CallAction.KILL,
    "SCMP_ACT_TRAP": CallAction.TRAP,
    "SCMP_ACT_ERRNO": CallAction.DENY,
    "SCMP_ACT_TRACE": CallAction.DENY,  # with ENOSYS, the kernel's answer where no tracer is, and none can be
    "SCMP_ACT_NOTIFY": CallAction.ESCALATE,
    "SCMP_ACT_LOG": CallAction.LOG,
    "SCMP_ACT_ALLOW": CallAction.ALLOW,
}
_OPERATORS = {
    "SCMP_CMP_NE": "ne", "SCMP_CMP_LT": "lt", "SCMP_CMP_LE": "le", "SCMP_CMP_EQ": "eq", "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt", "SCMP_CMP_MASKED_EQ": "masked_eq",
}  # fmt: skip
_TOP = (
    "defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls", "flags", "listenerPath",
    "listenerMetadata",
)  # fmt: skip
_RULE = ("name", "names", "action", "errnoRet", "errno", "args", "includes", "excludes", "comment")
_ARCHES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_LOG": ("kernel", "every refusal is reported anyway"),
    "SECCOMP_FILTER_FLAG_TSYNC": ("kernel", "the filters are there before there is a second thread"),
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": ("", "it would switch a mitigation off: the kernel's default stays"),
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": ("", "the supervisor sets the listener's flags"),
}
_WORDS = re.compile(r"[A-Za-z0-9_]{1,64}")
_KERNEL = re.compile(r"([0-9]{1,3})\.([0-9]{1,4})")
_U64 = 2**64 - 1
_Rule = tuple[CallAction, int, tuple[ArgumentTest, ...]]


def seccomp_profile(
    item: Item, effects: list[Effect], *, machine: str = MACHINE, release: str | None = None
) -> SyscallPolicy:
    """The profile, narrowing Clawback's own. `InvalidInput` for one under which nothing could start or be sealed."""
    top = item.mapping(_TOP, required=("defaultAction",))
    otherwise, number = _verdict(top["defaultAction"], top.get("defaultErrnoRet"), top.get("defaultErrno"))
    _architectures(top, effects, machine)
    for flag in top["flags"].list(limit=8) if "flags" in top else ():
        by, how = _FLAGS[flag.one_of(tuple(_FLAGS))]
        effects.append(Effect(f"{flag.key} {flag.text()}", by, how))
    effects.extend(
        Effect(top[key].key, "", "what is escalated goes to Clawback's own supervisor")
        for key in ("listenerPath", "listenerMetadata")
        if key in top and top[key].scalar()
    )
    by_name: dict[str, list[_Rule]] = {}
    for entry in top["syscalls"].list(limit=4096) if "syscalls" in top and not top["syscalls"].is_null else ():
        found = entry.mapping(_RULE, required=("action",))
        action, code = _verdict(found["action"], found.get("errnoRet"), found.get("errno"))
        names = _names(entry, found, action, effects)
        tests = argument_tests(found["args"], _OPERATORS) if "args" in found and not found["args"].is_null else ()
        if not _applies(found, machine, release or platform.release()):
            continue
        if action is otherwise and (action is not CallAction.DENY or code == number):
            continue
        for name in names:
            rules = by_name.setdefault(name, [])
            if rules and not rules[-1][2]:
                continue  # decided already
            if not tests:
                rules.clear()
            rules.append((action, code, tests))
    policy = SyscallPolicy(rules=_gathered(by_name), otherwise=otherwise, errno=number)
    check_floor(item, policy, machine)
    effects.append(Effect(item.key or "seccomp profile", "kernel", "seccomp, on top of Clawback's own blocked set"))
    return policy


def _gathered(by_name: dict[str, list[_Rule]]) -> tuple[CallRule, ...]:
    """Calls with equal rules in one rule."""
    names: dict[_Rule, list[str]] = {}
    for name, rules in by_name.items():
        for rule in rules:
            names.setdefault(rule, []).append(name)
    return tuple(
        CallRule(names=tuple(those), action=action, errno=code, tests=tests)
        for (action, code, tests), those in names.items()
    )


def _verdict(item: Item, number: Item | None, name: Item | None) -> tuple[CallAction, int]:
    """An action and its errno, which is a number (Docker, OCI) or a name (Podman); EPERM where there is none."""
    word = item.one_of(tuple(_ACTIONS))
    code: int = errno.EPERM
    if number is not None and not number.is_null:
        code = number.integer(0, 4095)
    elif name is not None and not name.is_null:
        text = name.text(limit=32)
        found = {value: key for key, value in errno.errorcode.items()}.get(text)
        if found is None:
            raise name.wrong(f"{shown(text)} is not an errno", hint="such as EPERM or ENOSYS")
        code = found
    if word == "SCMP_ACT_TRACE":
        code = errno.ENOSYS
    return _ACTIONS[word], code if _ACTIONS[word] is CallAction.DENY else errno.EPERM


def _architectures(top: dict[str, Item], effects: list[Effect], machine: str) -> None:
    if "architectures" in top and "archMap" in top:
        raise top["archMap"].wrong("both architectures and archMap", hint="keep one of them")
    _, native = _ARCHES[machine]
    if "architectures" in top and not top["architectures"].is_null:
        names = [entry.text(limit=40) for entry in top["architectures"].list(limit=64)]
        if names and native not in names:
            raise top["architectures"].wrong(f"{native} is not in it: every call would kill", hint=f"add {native}")
    for entry in top["archMap"].list(limit=64) if "archMap" in top and not top["archMap"].is_null else ():
        found = entry.mapping(("architecture", "subArchitectures"), required=("architecture",))
        found["architecture"].text(limit=40)
        if "subArchitectures" in found and not found["subArchitectures"].is_null:
            for sub in found["subArchitectures"].list(limit=16):
                sub.text(limit=40)
    key = "architectures" if "architectures" in top else "archMap"
    if key in top:
        effects.append(Effect(top[key].key, "kernel", f"{native} alone: 32-bit and x32 entries stay closed"))


def _names(entry: Item, found: dict[str, Item], action: CallAction, effects: list[Effect]) -> tuple[str, ...]:
    if "name" in found and "names" in found and found["name"].scalar():
        raise found["name"].wrong("both name and names", hint="keep one of them")
    if "names" in found:
        items = found["names"].list(limit=1024)
    elif "name" in found:
        items = (found["name"],)
    else:
        raise entry.wrong("key 'names' is missing", hint='such as "names": ["ptrace"]')
    if not items:
        raise entry.wrong("no names: the rule would match nothing, or all", hint="name the calls")
    names = []
    for item in items:
        name = item.text(limit=64)
        if not known_call(name):
            if action is not CallAction.ALLOW:
                # A typing error here would leave a call open that somebody meant to close.
                raise item.wrong(f"{shown(name)} is not a system call", hint="see `man 2 syscalls`")
            effects.append(Effect(f"{item.key} {name}", "", "not a call that this Clawback knows: it stays closed"))
        names.append(name)
    return tuple(names)


def known_call(name: str) -> bool:
    """Whether a system call is called so on any architecture."""
    return name in FOREIGN or any(name in table for table in TABLES.values())


def argument_tests(item: Item, operators: dict[str, str]) -> tuple[ArgumentTest, ...]:
    """`args`: all of them must hold. Two of one argument are refused, as by libseccomp."""
    tests: list[ArgumentTest] = []
    taken: set[int] = set()
    for entry in item.list(limit=12):
        found = entry.mapping(("index", "value", "valueTwo", "op"), required=("index", "value", "op"))
        index = found["index"].integer(0, 5)
        operator = operators[found["op"].one_of(tuple(operators))]
        value = found["value"].integer(0, _U64)
        second = found["valueTwo"].integer(0, _U64) if "valueTwo" in found and not found["valueTwo"].is_null else 0
        if index in taken:
            raise entry.wrong(f"a second test of argument {index}", hint="write a rule for each")
        taken.add(index)
        if operator == "masked_eq" and not value:
            continue  # no bit is looked at: it is no test, for libseccomp either
        if operator == "masked_eq":
            tests.append(ArgumentTest(argument=index, operator=operator, value=second & value, mask=value))
        else:
            tests.append(ArgumentTest(argument=index, operator=operator, value=value))
    return tuple(sorted(tests, key=lambda test: test.argument))


def _applies(found: dict[str, Item], machine: str, release: str) -> bool:
    """Whether a rule's conditions hold here. An agent has no capability at all."""
    arch, _ = _ARCHES[machine]
    for key, wanted in (("includes", True), ("excludes", False)):
        if key not in found or found[key].is_null:
            continue
        conditions = found[key].mapping(("caps", "arches", "minKernel"))
        caps = _words(conditions.get("caps"))
        arches = _words(conditions.get("arches"))
        kernel = _reached(conditions["minKernel"], release) if _there(conditions.get("minKernel")) else None
        if wanted and (caps or (arches and arch not in arches) or kernel is False):
            return False
        if not wanted and (arch in arches or kernel):
            return False
    return True


def _there(item: Item | None) -> bool:
    return item is not None and not item.is_null and bool(item.scalar())


def _words(item: Item | None) -> tuple[str, ...]:
    if item is None or item.is_null:
        return ()
    words = []
    for entry in item.list(limit=64):
        word = entry.text(limit=64)
        if not _WORDS.fullmatch(word):
            raise entry.wrong(f"{shown(word)} is not a name", hint="such as CAP_SYS_ADMIN or amd64")
        words.append(word)
    return tuple(words)


def _reached(item: Item, release: str) -> bool:
    wanted, running = _KERNEL.fullmatch(item.text(limit=16)), _KERNEL.match(release)
    if wanted is None:
        raise item.wrong("not a kernel version", hint='such as "4.8"')
    if running is None:
        return False
    return tuple(map(int, running.groups())) >= tuple(map(int, wanted.groups()))
