"""An agent is refused a system call whose only use in a sandbox is to leave it."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import KernelActivity, Level, Severity

__all__ = ["DETECTOR"]

# Narrow on purpose. unshare, mount, ptrace, io_uring_setup and clone3 are tried by browsers, debuggers, package tools
# and C libraries that then do without; those count towards the spike instead.
_ESCAPES = frozenset(
    {
        "bpf",
        "delete_module",
        "finit_module",
        "fsconfig",
        "fsmount",
        "init_module",
        "ioperm",
        "iopl",
        "kexec_file_load",
        "kexec_load",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "pidfd_getfd",
        "pivot_root",
        "process_vm_writev",
        "setns",
        "swapon",
        "userfaultfd",
    }
)


@detector(
    id="sandbox.escape-attempt",
    title="Attempt to leave the sandbox",
    reads={KernelActivity},
    severity=Severity.CRITICAL,
    technique="T1611",
    reflex=Level.ISOLATE,
    attack=("T1611",),
    atlas=("AML.T0105",),
    asi=("ASI05", "ASI10"),
    seed_asi=("ASI-06",),
)
def escape_attempt(event: KernelActivity, _memory: Stateless) -> Hit | None:
    """One refusal is enough: no agent's runtime calls these by accident."""
    if not event.blocked or event.syscall not in _ESCAPES:
        return None
    return Hit(
        resource=event.syscall,
        summary=f"refused system call {event.syscall} by {event.exe or 'an unknown program'}",
        attempts=(("syscall", event.syscall),),
    )


DETECTOR = escape_attempt
