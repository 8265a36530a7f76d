"""From a launch order and a policy to a job: which paths are shown, what the environment is, what the limits are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.interpreter import BASE, needed, too_wide, within
from clawback.enforcement.sandbox.job import Job, Restrictions
from clawback.enforcement.sandbox.record import GATEWAY_PORT
from clawback.enforcement.sandbox.shown import Ground
from clawback.errors import InvalidInput
from clawback.model import LaunchSpec

__all__ = ["AGENT_NAME", "plan"]

AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRIVATE = ("/tmp", "/dev", "/run/secrets", "/proc", "/sys")
_PROXY = f"http://127.0.0.1:{GATEWAY_PORT}"
# Set by the sandbox, and what they say is true: an order cannot say otherwise.
_OURS = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY"})
_LOADER = re.compile(r"LD_.*|GCONV_PATH|GLIBC_TUNABLES")


def _environment(spec: LaunchSpec, *, network: bool) -> dict[str, str]:
    environment = {
        "PATH": _PATH,
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "USER": "agent",
        "SHELL": "/bin/sh",
    }
    for name, value in spec.environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise InvalidInput(f"agent {spec.agent}: environment: {name!r} is not a variable")
        if name in _OURS or _LOADER.fullmatch(name):
            raise InvalidInput(f"agent {spec.agent}: environment: {name} is the sandbox's to set", hint="leave it out")
        environment[name] = value
    if network:
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY)
    return environment | {"NO_PROXY": "", "no_proxy": ""}


def _checked(path: str, where: str) -> str:
    if not os.path.isabs(path) or "\0" in path or ".." in path.split("/"):
        raise InvalidInput(f"{where}: {path!r} is not an absolute path without ..")
    path = os.path.normpath(path)
    if too_wide(path):
        raise InvalidInput(f"{where}: {path} would show too much", hint="list the folders below it that are needed")
    return path


def _binds(spec: LaunchSpec, policy: SandboxPolicy, ground: Ground) -> tuple[dict[str, bool], dict[str, str]]:
    """Host path → writable, and host path → where it lies, without links."""
    who = f"agent {spec.agent}"
    binds: dict[str, bool] = {}
    sources: dict[str, str] = {}
    listed: list[tuple[str, Sequence[str], bool]] = [
        (f"policy {policy.name}: readable", policy.readable, False),
        (f"{who}: readable", spec.readable, False),
        (f"policy {policy.name}: writable", policy.writable, True),
        (f"{who}: writable", spec.writable, True),
    ]
    for where, paths, writable in listed:
        for given in paths:
            if os.path.normpath(given) in _PRIVATE:
                continue
            path = _checked(given, where)
            if not os.path.exists(path):
                if policy.skip_missing and given in (*policy.readable, *policy.writable):
                    continue
                raise InvalidInput(f"{where}: {path} does not exist", hint="create it, or take it off the list")
            source = ground.resolved(path, where, writable=writable)
            if writable and within(source, (*BASE, "/etc", "/boot")):
                raise InvalidInput(f"{where}: {path} is part of the system", hint="let the agent write elsewhere")
            if writable or not within(path, BASE):
                binds[path] = binds.get(path, False) or writable
                sources[path] = source
    written = tuple(sources[path] for path, writable in binds.items() if writable)
    later = replace(ground, written=(*ground.written, *written))
    for path in needed(spec.command[0], later.of_an_agent):
        sources.setdefault(path, ground.resolved(path, f"{who}: command", writable=False))
        binds.setdefault(path, False)
    workdir = os.path.normpath(spec.workdir)
    if workdir not in {"/", *_PRIVATE} and not within(workdir, (*BASE, *binds)):
        path = _checked(workdir, f"{who}: workdir")
        if not os.path.isdir(path):
            raise InvalidInput(f"{who}: workdir: {path} is not a folder")
        sources[path] = ground.resolved(path, f"{who}: workdir", writable=False)
        binds[path] = False
    if (policy.workdir_writable or policy.filesystem == "read-write") and workdir in binds:
        binds[workdir] = True
        sources[workdir] = ground.resolved(workdir, f"{who}: workdir", writable=True)
        if within(sources[workdir], (*BASE, "/etc", "/boot")):
            raise InvalidInput(f"{who}: workdir: {workdir} is part of the system", hint="let the agent write elsewhere")
    return _past_links(binds, sources)


def _past_links(binds: dict[str, bool], sources: dict[str, str]) -> tuple[dict[str, bool], dict[str, str]]:
    """What lies behind a link of a folder that is shown too is put where the link leads: no path to a mount has one."""
    found: dict[str, bool] = {}
    for path, writable in binds.items():
        outer = max((one for one in binds if one != path and within(path, (one,))), key=len, default="")
        behind = outer and sources[path] != sources[outer] + path[len(outer) :]
        place = sources[path] if behind else path
        found[place] = found.get(place, False) or writable
    return found, {path: source for path, source in sources.items() if path in found and path != source}


def plan(
    spec: LaunchSpec,
    policy: SandboxPolicy,
    *,
    secrets: Mapping[str, str],
    canaries: Sequence[str],
    ground: Ground | None = None,
) -> Job:
    """The job, but for the instance, folder and id that its sandbox gives it; `InvalidInput` naming what is wrong."""
    if not AGENT_NAME.fullmatch(spec.agent):
        raise InvalidInput(f"agent {spec.agent!r}: a name has letters, digits, '.', '_' and '-', 64 at most")
    if not spec.command or not spec.command[0] or any("\0" in word for word in spec.command):
        raise InvalidInput(f"agent {spec.agent}: no command, or one with a zero byte")
    for name in secrets:
        if not _SECRET_NAME.fullmatch(name):
            raise InvalidInput(f"agent {spec.agent}: secret {name!r} is not a file name")
    network = policy.network != "none"
    binds, sources = _binds(spec, policy, ground or Ground())
    asked = {os.path.normpath(path) for path in (*policy.writable, *spec.writable)}
    tmp = policy.filesystem == "read-write" or "/tmp" in asked
    write = [*(["/tmp"] if tmp else []), *(path for path, writable in binds.items() if writable)]
    processes = policy.max_processes
    limits = {"CORE": (0, 0), "NOFILE": (4096, 4096), "MEMLOCK": (65536, 65536), "MSGQUEUE": (819200, 819200)}
    if processes is not None:
        limits["NPROC"] = (processes + 1, processes + 1)
    return Job(
        agent=spec.agent,
        instance="",
        folder="",
        uid=-1,
        policy=spec.policy,
        policy_version=spec.policy_version,
        command=spec.command,
        environment=_environment(spec, network=network),
        workdir=os.path.normpath(spec.workdir),
        binds=tuple(sorted(binds.items())),
        sources=sources,
        tmp_writable=tmp,
        canaries=tuple(canaries),
        restrictions=Restrictions(
            read=tuple(binds),
            write=tuple(write),
            ports=(GATEWAY_PORT,) if network else (),
            syscalls=policy.syscalls,
            escalations=policy.escalations,
        ),
        network=network,
        required=policy.required,
        max_memory=policy.max_memory,
        max_cpu=policy.max_cpu,
        max_processes=processes,
        limits=limits,
    )
