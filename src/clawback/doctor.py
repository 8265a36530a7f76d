"""What this host can do and which parts answer: the kernel's features, then the processes and the issuers."""

from __future__ import annotations

from collections.abc import Callable

from clawback.config import Settings
from clawback.enforcement import native
from clawback.enforcement.core import descriptors
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.features import Feature, probe
from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import ClawbackError, NotFound

__all__ = ["examine"]

_MANY_AGENTS = 1000


def _part(name: str, ask: Callable[[], str], lost: str, fix: str) -> Feature:
    try:
        found, ok = ask(), True
    except ClawbackError as error:
        found, ok = error.message, False
    return Feature(name=name, ok=ok, found=found, lost=lost, fix="" if ok else fix)


def _core(settings: Settings) -> str:
    CoreClient(settings.core_socket).health()
    return f"answers at {settings.core_socket}"


def _gateway(settings: Settings) -> str:
    health = GatewayClient(settings.gateway_socket).health()
    if damaged := health["orders_damaged"]:
        raise ClawbackError(f"denies everything: the records of orders are damaged: {', '.join(damaged[:5])}")
    return f"answers at {settings.gateway_socket}; {health['orders']} orders stand"


def _journal(settings: Settings) -> str:
    from clawback.journal import Journal

    try:
        journal = Journal(settings.journal, make=False)
    except NotFound:
        return "none yet"
    return f"{len(journal.incidents())} incidents"


def _vault(settings: Settings) -> str:
    from clawback.connectors.assemble import assemble

    if settings.vault is None:
        return "not configured"
    assemble(settings).vault.token_find({"clawback": "doctor"})
    return f"answers at {settings.vault.address}"


def _shim() -> Feature:
    """By which program sandboxes are made; asked for one that is not there, the core does not start."""
    try:
        way = native.way()
    except ClawbackError as error:
        return Feature(name="shim", ok=False, found=error.message, lost="the core does not start", fix=error.hint or "")
    return Feature(
        name="shim",
        ok=way.program is not None,
        found=way.why,
        lost="a start takes about twice as long, an idle sandbox some 6 MB",
        fix="a C compiler when Clawback is installed, or `python -m clawback.enforcement.native`",
    )


def _descriptors(settings: Settings) -> Feature:
    """Of the core where one answers; else of one that would be started from here."""
    try:
        room = int(CoreClient(settings.core_socket).health()["descriptors"]["agents"])
    except ClawbackError:
        room = descriptors.read().agents
    return Feature(
        name="descriptors",
        ok=room >= _MANY_AGENTS,
        found=f"enough for {room:,} agents at once",
        lost="no more agents than that start",
        fix="a higher hard limit on open files: LimitNOFILE= of the core's unit, or ulimit -Hn",
    )


def _audit_wait(settings: Settings) -> Feature:
    """Of the core where one answers; else what one that is started from here would find."""
    try:
        said = str(CoreClient(settings.core_socket).health()["telemetry"].get("audit wait", "off"))
    except ClawbackError:
        said = "bounded while a core runs" if settings.core.bound_audit_wait else "off: core.bound_audit_wait"
    return Feature(
        name="audit wait",
        ok=not said.startswith("off"),
        found=said,
        lost="an agent that is refused much may be stuck in the kernel for a minute, neither frozen nor killed",
        fix="core.bound_audit_wait, and a low backlog_wait_time where an audit daemon is configured",
    )


def examine(settings: Settings) -> tuple[Feature, ...]:
    """Every check; nothing is changed. Call it before the process has threads."""
    return (
        *probe(settings.core.uid_base),
        _shim(),
        _descriptors(settings),
        _audit_wait(settings),
        _part("core", lambda: _core(settings), "nothing can be launched or contained", "clawback up, or clawback core"),
        _part("gateway", lambda: _gateway(settings), "agents have no way out", "clawback up, or clawback gateway"),
        _part("journal", lambda: _journal(settings), "no incident can be recorded", "check journal_url"),
        _part("vault", lambda: _vault(settings), "Vault tokens are not rotated", "check vault.address and its token"),
    )
