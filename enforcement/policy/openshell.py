"""Reads OpenShell's `version: 1` documents and NemoClaw's presets."""

from __future__ import annotations

import re

from clawback.enforcement.policy.network import policy_name
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.policy.openshell_network import endpoint_rules
from clawback.enforcement.policy.paths import MOST, NEVER_WRITABLE, path_of
from clawback.enforcement.policy.types import Effect, NetworkPolicy, SandboxPolicy
from clawback.enforcement.sandbox.interpreter import BASE, too_wide

__all__ = ["DOCUMENT", "PRESET", "openshell", "preset"]

DOCUMENT = ("version", "filesystem_policy", "landlock", "process", "network_policies", "network_middlewares")
PRESET = ("preset", "network_policies")

# What a sandbox has of its own, or shows of the host anyway. OpenShell's paths are those of an image; the host's /etc,
# /proc and logs are other people's.
_OWN = {
    "/dev": "null, zero, full, random, urandom and the terminal's links are there, private and nothing else",
    "/etc": "a small /etc of the sandbox's own is there, with the host's certificates and linker cache",
    "/proc": "the sandbox's own /proc is there, masked",
    "/sys": "an empty /sys is there",
    "/tmp": "a private /tmp is there",
    "/var/log": "the host's logs are not the agent's: an empty /var is there",
}
_WHOLE = ("/dev", "/proc", "/sys")  # and with all below
_WRITABLE_OWN = ("/dev", "/tmp")
_UID = re.compile(r"[1-9][0-9]{0,9}")
_INSIDE = "1000"


def openshell(root: Item, effects: list[Effect]) -> tuple[SandboxPolicy, NetworkPolicy]:
    """A `version: 1` document. It has no name: the policy's is whatever it is stored under."""
    top = root.mapping(DOCUMENT, required=("version",))
    version = top["version"].integer(0, 1_000_000)
    if version != 1:
        raise top["version"].wrong(f"version {version} is not known", hint="this Clawback reads version 1")
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    workdir = True  # OpenShell's default where the whole section is left out
    if "filesystem_policy" in top:
        section = top["filesystem_policy"].mapping(("include_workdir", "read_only", "read_write"))
        workdir = "include_workdir" in section and section["include_workdir"].boolean()
        readable = _shown(section.get("read_only"), effects, writable=False)
        writable = _shown(section.get("read_write"), effects, writable=True)
        if len(readable) + len(writable) > MOST:
            raise top["filesystem_policy"].wrong(f"more than {MOST} paths", hint="name the folders above them")
    how = "the working directory is writable" if workdir else "the working directory is shown read-only"
    effects.append(Effect("filesystem_policy.include_workdir", "kernel", f"mounts and Landlock: {how}"))
    hard = False
    if "landlock" in top:
        hard = _hard(top["landlock"])
    how = "without Landlock nothing is launched" if hard else "without Landlock the launch says so and goes on"
    effects.append(Effect("landlock.compatibility", "launch", how))
    if "process" in top:
        _process(top["process"], effects)
    if "network_middlewares" in top and top["network_middlewares"].entries(limit=10):
        raise top["network_middlewares"].wrong(
            "the gateway runs no middlewares: what they hold back would get out", hint="take the section out"
        )
    rules = endpoint_rules(top["network_policies"], effects) if "network_policies" in top else ()
    sandbox = SandboxPolicy(
        name="",
        readable=readable,
        writable=writable,
        workdir_writable=workdir,
        skip_missing=True,
        required=("landlock",) if hard else (),
    )
    return sandbox, NetworkPolicy(name="", rules=rules)


def preset(root: Item, effects: list[Effect]) -> tuple[SandboxPolicy, NetworkPolicy]:
    """A preset: the network part alone, in the tightest sandbox."""
    top = root.mapping(PRESET, required=PRESET)
    about = top["preset"].mapping(("name", "description"), required=("name",))
    name = policy_name(about["name"])
    if "description" in about:
        about["description"].text()
    return SandboxPolicy(name=name), NetworkPolicy(name=name, rules=endpoint_rules(top["network_policies"], effects))


def _shown(item: Item | None, effects: list[Effect], *, writable: bool) -> tuple[str, ...]:
    """Host paths to show beyond what every sandbox has."""
    if item is None:
        return ()
    found = []
    for entry in item.list(limit=MOST):
        path = path_of(entry)
        own = next((own for own in _OWN if path == own or (own in _WHOLE and path.startswith(own + "/"))), "")
        system = next((folder for folder in BASE if path == folder or path.startswith(folder + "/")), "")
        host = path if not own and not system else ""
        if writable and (system or own not in ("", *_WRITABLE_OWN) or path.startswith("/etc/")):
            raise entry.wrong(f"too wide to be writable: {path} is part of the system", hint="let it write elsewhere")
        if host and (too_wide(host) or (writable and host in NEVER_WRITABLE)):
            raise entry.wrong(f"too wide: {path}", hint="name the folders below it that the agent needs")
        if own == "/tmp" and writable:
            found.append(path)
        if own or system:
            how = _OWN[own] if own else "every sandbox shows it read-only"
            effects.append(Effect(f"{entry.key} {path}", "kernel", how))
        else:
            effects.append(
                Effect(f"{entry.key} {path}", "kernel", "mounts and Landlock; passed over if it is not there")
            )
            found.append(path)
    return tuple(found)


def _hard(item: Item) -> bool:
    found = item.mapping(("compatibility",))
    if "compatibility" not in found:
        return False
    return found["compatibility"].one_of(("best_effort", "hard_requirement")) == "hard_requirement"


def _process(item: Item, effects: list[Effect]) -> None:
    for key, value in item.mapping(("run_as_user", "run_as_group")).items():
        text = value.text(limit=32)
        if text in ("root", "0"):
            raise value.wrong("root", hint="a number from 1, or sandbox")
        if text != "sandbox" and not (_UID.fullmatch(text) and int(text) <= 4_294_967_294):
            raise value.wrong("not a user", hint='"sandbox", or a number from 1 to 4294967294 in quotes')
        place = f"process.{key}"
        if text in ("sandbox", _INSIDE):
            effects.append(Effect(place, "launch", f"{_INSIDE} inside, outside a user id of the agent's own"))
        else:
            effects.append(Effect(place, "", f"never root, but {_INSIDE} inside: the number is not taken over"))
