"""Reads a policy file, of whichever form it is, strictly.

`SandboxPolicy` and `networkPolicy` documents, one of each at most; an OpenShell `version: 1` document; a NemoClaw
preset; a container runtime's seccomp profile. What is not said is the tightest (no egress; a read-only sandbox). What
comes of each key is listed in `PolicyFile.effects`, so that nobody takes a key for a protection that it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from clawback.enforcement.policy import openshell
from clawback.enforcement.policy.network import network_policy
from clawback.enforcement.policy.nodes import Item, documents
from clawback.enforcement.policy.permissions import Permissions
from clawback.enforcement.policy.sandbox_form import sandbox_policy
from clawback.enforcement.policy.seccomp_profile import seccomp_profile
from clawback.enforcement.policy.types import Effect, NetworkPolicy, PolicyFile, SandboxPolicy
from clawback.errors import InvalidInput

__all__ = ["load"]

Reader = Callable[[Item, list[Effect]], tuple[SandboxPolicy, NetworkPolicy]]


def load(text: str | bytes, *, where: str) -> PolicyFile:
    """The policy in `text`; `where` is what messages call the file. `InvalidInput` names file, line, key and mend."""
    raw, roots = documents(text, where=where)
    if not roots:
        raise InvalidInput(f"{where}:1: the file is empty", hint="it needs a SandboxPolicy or a networkPolicy document")
    effects: list[Effect] = []
    form, read = _form(roots[0])
    if read is not None:
        if len(roots) > 1:
            raise roots[1].wrong(f"a second document beside an {form}", hint="put it into a file of its own")
        sandbox, network = read(roots[0], effects)
    else:
        sandbox, network = _clawback(roots, effects, where)
    digest = hashlib.sha256(raw).hexdigest()
    return PolicyFile(sandbox=sandbox, network=network, sha256=digest, form=form, effects=tuple(effects))


def _form(root: Item) -> tuple[str, Reader | None]:
    """What the first document is, by the keys that only it has."""
    keys = root.keys()
    if "preset" in keys:
        return "NemoClaw preset", openshell.preset
    if "defaultAction" in keys:
        return "seccomp profile", _profile
    if keys & set(openshell.DOCUMENT) and not keys & {"apiVersion", "kind", "networkPolicy"}:
        return "OpenShell version 1", openshell.openshell
    return "SandboxPolicy", None


def _profile(root: Item, effects: list[Effect]) -> tuple[SandboxPolicy, NetworkPolicy]:
    return SandboxPolicy(name="", syscalls=seccomp_profile(root, effects)), NetworkPolicy(name="")


def _clawback(roots: tuple[Item, ...], effects: list[Effect], where: str) -> tuple[SandboxPolicy, NetworkPolicy]:
    sandbox: SandboxPolicy | None = None
    network: NetworkPolicy | None = None
    granted = Permissions()
    for root in roots:
        top = root.mapping(("apiVersion", "kind", "metadata", "spec", "networkPolicy"))
        if "networkPolicy" in top:
            if len(top) > 1:
                raise top["networkPolicy"].wrong(
                    "it stands in a document of its own", hint="put a line `---` before it"
                )
            if network is not None:
                raise root.wrong("a second networkPolicy document", hint="join them into one")
            network = network_policy(top["networkPolicy"], effects)
        else:
            if sandbox is not None:
                raise root.wrong("a second SandboxPolicy document", hint="join them into one")
            sandbox, granted = sandbox_policy(root, effects)
    if sandbox is None:
        sandbox = SandboxPolicy(name=network.name if network else "")
    if network is None:
        network = NetworkPolicy(name=sandbox.name)
    network = replace(network, allow=network.allow + granted.allow, deny=network.deny + granted.deny)
    if sandbox.network == "none" and network.allow:
        raise InvalidInput(
            f"{where}: spec.isolation.network is none, and {network.allow[0].name} allows {network.allow[0].domain}",
            hint="make it restricted, or drop the egress rules",
        )
    return sandbox, network
