"""Reads a policy file: `SandboxPolicy` and `networkPolicy` documents, one of each at most, strictly.

Either may be left out: what is not said is then the tightest (no egress; a read-only sandbox). What is accepted and not
acted on is listed in `PolicyFile.unenforced`, so that nobody takes a key for a protection.
"""

from __future__ import annotations

import hashlib
import re

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.network import network_policy, policy_name
from clawback.enforcement.policy.nodes import Item, documents
from clawback.enforcement.policy.types import NetworkPolicy, PolicyFile, SandboxPolicy
from clawback.errors import InvalidInput

__all__ = ["load"]

_API = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?")
_MEMORY = re.compile(r"([1-9][0-9]{0,12})(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_MAX_PATHS = 256
# Writable, these would let an agent change the host or its own cage. What is below them is the author's call, except
# below `_NEVER_BENEATH`.
_NEVER_WRITABLE = frozenset(
    ("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv")
) | {"/sys", "/usr", "/var"}
_NEVER_BENEATH = ("/boot/", "/dev/", "/proc/", "/sys/")


def load(text: str | bytes, *, where: str) -> PolicyFile:
    """The policy in `text`; `where` is what messages call the file. `InvalidInput` names file, line, key and mend."""
    raw, roots = documents(text, where=where)
    if not roots:
        raise InvalidInput(f"{where}:1: the file is empty", hint="it needs a SandboxPolicy or a networkPolicy document")
    sandbox: SandboxPolicy | None = None
    network: NetworkPolicy | None = None
    unenforced: list[str] = []
    for root in roots:
        top = root.mapping(("apiVersion", "kind", "metadata", "spec", "networkPolicy"))
        if "networkPolicy" in top:
            if len(top) > 1:
                raise top["networkPolicy"].wrong(
                    "it stands in a document of its own", hint="put a line `---` before it"
                )
            if network is not None:
                raise root.wrong("a second networkPolicy document", hint="join them into one")
            network = network_policy(top["networkPolicy"], unenforced)
        else:
            if sandbox is not None:
                raise root.wrong("a second SandboxPolicy document", hint="join them into one")
            sandbox = _sandbox(root, unenforced)
    if sandbox is None:
        sandbox = SandboxPolicy(name=network.name if network else "")
    if network is None:
        network = NetworkPolicy(name=sandbox.name)
    if sandbox.network == "none" and network.allow:
        raise InvalidInput(
            f"{where}: spec.isolation.network is none, and networkPolicy allows {network.allow[0].domain}",
            hint="make it restricted, or drop the egress rules",
        )
    digest = hashlib.sha256(raw).hexdigest()
    return PolicyFile(sandbox=sandbox, network=network, sha256=digest, unenforced=tuple(unenforced))


def _sandbox(root: Item, unenforced: list[str]) -> SandboxPolicy:
    top = root.mapping(("apiVersion", "kind", "metadata", "spec"), required=("apiVersion", "kind", "metadata", "spec"))
    top["apiVersion"].one_of(("openshell.nvidia.com/v1",))
    top["kind"].one_of(("SandboxPolicy",))
    name = policy_name(top["metadata"].mapping(("name",), required=("name",))["name"])
    spec = top["spec"].mapping(("isolation", "resources", "permissions", "auditLog", "filesystem"))

    isolation = _part(spec, "isolation", ("network", "filesystem", "syscalls"))
    network = isolation["network"].one_of(("restricted", "none")) if "network" in isolation else "restricted"
    syscalls = isolation["syscalls"].one_of(("default", "minimal")) if "syscalls" in isolation else "default"
    filesystem = "read-only"
    if "filesystem" in isolation:
        filesystem = isolation["filesystem"].one_of(("read-only", "read-write"))

    resources = _part(spec, "resources", ("maxMemory", "maxCPU", "gpuAccess", "maxProcesses"))
    gpu = resources["gpuAccess"].one_of(("none", "inference-only", "full")) if "gpuAccess" in resources else "none"
    if gpu != "none":
        unenforced.append("spec.resources.gpuAccess")

    permissions = _part(spec, "permissions", ("allowedAPIs", "deniedAPIs"))
    unenforced.extend(f"spec.permissions.{key}" for key in permissions)

    audit = _part(spec, "auditLog", ("enabled", "destination"))
    if "destination" in audit:
        unenforced.append("spec.auditLog.destination")

    paths = _part(spec, "filesystem", ("readOnly", "readWrite"))
    readable = _paths(paths["readOnly"], writable=False) if "readOnly" in paths else ()
    writable = _paths(paths["readWrite"], writable=True) if "readWrite" in paths else ()
    if len(readable) + len(writable) > _MAX_PATHS:
        raise spec["filesystem"].wrong(f"more than {_MAX_PATHS} paths", hint="name the folders above them")
    return SandboxPolicy(
        name=name,
        network=network,
        filesystem=filesystem,
        syscalls=SyscallPolicy(base=syscalls),
        max_memory=_memory(resources["maxMemory"]) if "maxMemory" in resources else None,
        max_cpu=resources["maxCPU"].number(4096) if "maxCPU" in resources else None,
        max_processes=resources["maxProcesses"].integer(1, 4_194_304) if "maxProcesses" in resources else 256,
        gpu_access=gpu,
        readable=readable,
        writable=writable,
        allowed_apis=_apis(permissions["allowedAPIs"], allow=True) if "allowedAPIs" in permissions else (),
        denied_apis=_apis(permissions["deniedAPIs"], allow=False) if "deniedAPIs" in permissions else (),
        audit_enabled=audit["enabled"].boolean() if "enabled" in audit else True,
        audit_destination=audit["destination"].text(limit=256) if "destination" in audit else "",
    )


def _part(spec: dict[str, Item], key: str, known: tuple[str, ...]) -> dict[str, Item]:
    return spec[key].mapping(known) if key in spec else {}


def _memory(item: Item) -> int:
    """Bytes from a Kubernetes quantity."""
    value = item.text() if _is_text(item) else str(item.integer(1, 2**53))
    match = _MEMORY.fullmatch(value)
    size = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if not 2**20 <= size <= 2**50:
        raise item.wrong("not a size from 1Mi to 1024Ti", hint="such as 512Mi or 4Gi")
    return size


def _is_text(item: Item) -> bool:
    return str(item.node.tag).endswith(":str")


def _apis(item: Item, *, allow: bool) -> tuple[str, ...]:
    names = []
    for entry in item.list(limit=256):
        name = entry.text(limit=128)
        if name == "*" and allow:
            raise entry.wrong("allows every API", hint="name the APIs; `crm.*` is the widest form")
        if name != "*" and not _API.fullmatch(name):
            raise entry.wrong("not an API name", hint="such as crm.read or billing.*")
        names.append(name)
    return tuple(names)


def _paths(item: Item, *, writable: bool) -> tuple[str, ...]:
    paths = []
    for entry in item.list(limit=_MAX_PATHS):
        path = entry.text(limit=4095)
        parts = path.split("/")
        if not path.startswith("/"):
            raise entry.wrong("the path is relative", hint="start it with /")
        if ".." in parts:
            raise entry.wrong("the path has '..'", hint="write where it leads")
        if path != "/" and ("" in parts[1:] or "." in parts):
            raise entry.wrong(
                "the path has an empty or '.' part", hint="write it without '//', '/./' or a '/' at the end"
            )
        if "*" in path or "?" in path:
            raise entry.wrong("paths are not patterns", hint="name the folder")
        if path == "/":
            raise entry.wrong("too wide: the whole host", hint="name the folders that the agent needs")
        if writable and (path in _NEVER_WRITABLE or path.startswith(_NEVER_BENEATH)):
            raise entry.wrong(
                f"too wide to be writable: {path}", hint="name the folder below it that the agent writes to"
            )
        paths.append(path)
    return tuple(paths)
