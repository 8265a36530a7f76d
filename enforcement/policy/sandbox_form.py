"""Reads a `SandboxPolicy` document."""

from __future__ import annotations

import re

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.escalation import EscalationRule
from clawback.enforcement.policy.network import policy_name
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.policy.paths import MOST, paths
from clawback.enforcement.policy.permissions import Permissions, permissions
from clawback.enforcement.policy.syscall_form import syscalls
from clawback.enforcement.policy.types import Effect, SandboxPolicy

__all__ = ["sandbox_policy"]

_MEMORY = re.compile(r"([1-9][0-9]{0,12})(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_GPU = {
    "none": "no GPU has a device node in the sandbox",
    "inference-only": "no GPU has a device node in the sandbox; models are reached by the gateway alone",
}
_NETWORK = {
    "restricted": "a network of its own with loopback alone; the gateway listens in it",
    "none": "a network of its own with loopback alone, and Landlock refuses every TCP port",
}
_FILES = {
    "read-only": "mounts and Landlock: nothing is writable but what filesystem.readWrite lists",
    "read-write": "mounts and Landlock: the working directory and /tmp are writable",
}


def sandbox_policy(root: Item, effects: list[Effect]) -> tuple[SandboxPolicy, Permissions]:
    """The policy, and the egress rules that its permissions come to; what comes of each key is added to `effects`."""
    top = root.mapping(("apiVersion", "kind", "metadata", "spec"), required=("apiVersion", "kind", "metadata", "spec"))
    top["apiVersion"].one_of(("openshell.nvidia.com/v1",))
    top["kind"].one_of(("SandboxPolicy",))
    name = policy_name(top["metadata"].mapping(("name",), required=("name",))["name"])
    spec = top["spec"].mapping(("isolation", "resources", "permissions", "auditLog", "filesystem"))

    isolation = _part(spec, "isolation", ("network", "filesystem", "syscalls"))
    network, filesystem = "restricted", "read-only"
    calls = SyscallPolicy()
    decided: tuple[EscalationRule, ...] = ()
    if "network" in isolation:
        network = isolation["network"].one_of(tuple(_NETWORK))
        effects.append(Effect("spec.isolation.network", "kernel", _NETWORK[network]))
    if "filesystem" in isolation:
        filesystem = isolation["filesystem"].one_of(tuple(_FILES))
        effects.append(Effect("spec.isolation.filesystem", "kernel", _FILES[filesystem]))
    if "syscalls" in isolation:
        calls, decided = syscalls(isolation["syscalls"], effects)

    resources = _part(spec, "resources", ("maxMemory", "maxCPU", "gpuAccess", "maxProcesses"))
    for key, how in (
        ("maxMemory", "cgroup memory limit"),
        ("maxCPU", "cgroup CPU quota"),
        ("maxProcesses", "cgroup process limit, and the resource limit"),
    ):
        if key in resources:
            effects.append(Effect(f"spec.resources.{key}", "kernel", how))
    gpu = "none"
    if "gpuAccess" in resources:
        gpu = resources["gpuAccess"].one_of(("none", "inference-only", "full"))
        if gpu == "full":
            raise resources["gpuAccess"].wrong(
                "a GPU's driver is reached past every layer of the sandbox, so its device nodes are not shown",
                hint="inference-only: serve the model elsewhere and allow its address under egress",
            )
        effects.append(Effect("spec.resources.gpuAccess", "kernel", _GPU[gpu]))

    audit = _part(spec, "auditLog", ("enabled", "destination"))
    enabled = audit["enabled"].boolean() if "enabled" in audit else True
    if "enabled" in audit:
        how = "denials, decisions and lifetimes go to STATE/telemetry"
        by, how = ("core", how) if enabled else ("", f"{how} all the same: containment needs them")
        effects.append(Effect("spec.auditLog.enabled", by, how))
    destination = audit["destination"].text(limit=256) if "destination" in audit else ""
    if destination:
        how = "nothing is sent elsewhere: point your forwarder at the JSON lines in STATE/telemetry"
        effects.append(Effect("spec.auditLog.destination", "", how))

    granted = permissions(spec["permissions"], effects) if "permissions" in spec else Permissions()
    listed = _part(spec, "filesystem", ("readOnly", "readWrite"))
    readable = paths(listed["readOnly"], writable=False) if "readOnly" in listed else ()
    writable = paths(listed["readWrite"], writable=True) if "readWrite" in listed else ()
    if len(readable) + len(writable) > MOST:
        raise spec["filesystem"].wrong(f"more than {MOST} paths", hint="name the folders above them")
    effects.extend(Effect(f"spec.filesystem.{key}", "kernel", "mounts and Landlock") for key in listed)
    policy = SandboxPolicy(
        name=name,
        network=network,
        filesystem=filesystem,
        syscalls=calls,
        escalations=decided,
        max_memory=_memory(resources["maxMemory"]) if "maxMemory" in resources else None,
        max_cpu=resources["maxCPU"].number(4096) if "maxCPU" in resources else None,
        max_processes=resources["maxProcesses"].integer(1, 4_194_304) if "maxProcesses" in resources else 256,
        gpu_access=gpu,
        readable=readable,
        writable=writable,
        allowed_apis=granted.allowed,
        denied_apis=granted.denied,
        audit_enabled=enabled,
        audit_destination=destination,
    )
    return policy, granted


def _part(spec: dict[str, Item], key: str, known: tuple[str, ...]) -> dict[str, Item]:
    return spec[key].mapping(known) if key in spec else {}


def _memory(item: Item) -> int:
    """Bytes from a Kubernetes quantity."""
    value = item.text() if item.is_text else str(item.integer(1, 2**53))
    match = _MEMORY.fullmatch(value)
    size = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if not 2**20 <= size <= 2**50:
        raise item.wrong("not a size from 1Mi to 1024Ti", hint="such as 512Mi or 4Gi")
    return size
