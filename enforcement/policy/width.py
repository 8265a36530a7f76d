"""Says what one policy file allows that another does not, line by line, by their rules and not by their texts.

Where it cannot be told whether a changed rule allows more or less (OpenShell's endpoint rules, system calls), the
change is named: a widening that goes unseen is worse than a line too many.
"""

from __future__ import annotations

from collections.abc import Iterator

from clawback.enforcement.policy.types import EgressRule, NetworkPolicy, PolicyFile, SandboxPolicy

__all__ = ["wider"]

_MOST = 32


def wider(now: PolicyFile, good: PolicyFile) -> tuple[str, ...]:
    """What `now` allows beyond `good`, at most 32 lines; empty where it allows no more."""
    lines = [*_network(now.network, good.network), *_sandbox(now.sandbox, good.sandbox)]
    if len(lines) > _MOST:
        lines = [*lines[: _MOST - 1], f"and {len(lines) - _MOST + 1} more"]
    return tuple(lines)


def _network(now: NetworkPolicy, good: NetworkPolicy) -> Iterator[str]:
    for rule in now.allow:
        if not any(_covers(known, rule) for known in good.allow):
            yield f"allow {rule.name}: {_said(rule)}"
    for rule in good.deny:
        if not any(_covers(kept, rule) for kept in now.deny):
            yield f"no longer denied: {rule.name}: {_said(rule)}"
    known = {rule.key: rule for rule in good.rules}
    for endpoint_rule in now.rules:
        if endpoint_rule.key not in known:
            hosts = ", ".join(sorted({endpoint.host or "any host" for endpoint in endpoint_rule.endpoints}))
            yield f"new rule {endpoint_rule.key}: {hosts}"
        elif endpoint_rule != known[endpoint_rule.key]:
            yield f"changed rule {endpoint_rule.key}"


def _sandbox(now: SandboxPolicy, good: SandboxPolicy) -> Iterator[str]:
    if now.filesystem != good.filesystem and now.filesystem == "read-write":
        yield "filesystem: read-write"
    if now.network != good.network and good.network == "none":
        yield f"network: {now.network}"
    if now.workdir_writable and not good.workdir_writable:
        yield "the working directory is writable"
    if now.gpu_access != good.gpu_access and good.gpu_access == "none":
        yield f"gpuAccess: {now.gpu_access}"
    for path in sorted({*now.writable} - {*good.writable}):
        yield f"writable: {path}"
    for path in sorted({*now.readable} - {*good.readable, *good.writable}):
        yield f"readable: {path}"
    if (now.syscalls, now.escalations) != (good.syscalls, good.escalations):
        yield "system calls are decided otherwise"
    for layer in sorted({*good.required} - {*now.required}):
        yield f"not required any more: {layer}"


def _covers(wide: EgressRule, narrow: EgressRule) -> bool:
    """Everything that `narrow` matches, `wide` matches too. Paths are compared as written."""
    return (
        _covers_domain(wide.domain, narrow.domain)
        and all(
            not here or (there and set(there) <= set(here))
            for here, there in (
                (wide.ports, narrow.ports),
                (wide.methods, narrow.methods),
                (wide.paths, narrow.paths),
            )
        )
        and (not wide.model or wide.model == narrow.model)
    )


def _covers_domain(wide: str, narrow: str) -> bool:
    if wide in ("*", narrow):
        return True
    return wide.startswith("*.") and narrow.removeprefix("*.").endswith(wide[1:])


def _said(rule: EgressRule) -> str:
    parts = [rule.domain]
    parts += [f"ports {', '.join(map(str, rule.ports))}"] if rule.ports else []
    parts += [" ".join(rule.methods)] if rule.methods else []
    parts += [" ".join(rule.paths)] if rule.paths else []
    return "; ".join(parts)
