"""The host's audit waits no longer than it may while a core runs, and as long as before afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawback.enforcement.kernel import audit
from clawback.enforcement.kernel.audit import AuditStatus
from clawback.enforcement.telemetry.audit_wait import MOST, AuditWait
from clawback.enforcement.telemetry.sources import Sources

BEFORE = 15_000


class Kernel:
    """The one setting, as AUDIT_GET and AUDIT_SET have it: the host's own is never touched."""

    def __init__(self) -> None:
        self.wait = BEFORE
        self.daemon = False

    def status(self) -> AuditStatus:
        return AuditStatus(enabled=False, lost=0, daemon=self.daemon, wait=self.wait)

    def set_wait(self, jiffies: int) -> None:
        self.wait = jiffies


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(audit, "status", made.status)
    monkeypatch.setattr(audit, "set_wait", made.set_wait)
    return made


def test_bounded_and_put_back(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "audit-wait"
    wait = AuditWait(file)
    assert wait.bound() == "on"
    assert (kernel.wait, file.read_text()) == (MOST, f"{BEFORE}\n")
    wait.put_back()
    assert kernel.wait == BEFORE
    assert not file.exists()
    wait.put_back()
    assert kernel.wait == BEFORE


def test_after_a_kill_the_next_core_puts_it_back(kernel: Kernel, tmp_path: Path) -> None:
    AuditWait(tmp_path / "audit-wait").bound()
    following = AuditWait(tmp_path / "audit-wait")
    assert following.bound() == "on"
    following.put_back()
    assert kernel.wait == BEFORE


def test_kept_before_it_is_changed(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_jiffies: int) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(audit, "set_wait", refused)
    with pytest.raises(PermissionError):
        AuditWait(tmp_path / "audit-wait").bound()
    assert (tmp_path / "audit-wait").read_text() == f"{BEFORE}\n"
    assert kernel.wait == BEFORE


def test_what_another_chose_since_stands(kernel: Kernel, tmp_path: Path) -> None:
    wait = AuditWait(tmp_path / "audit-wait")
    wait.bound()
    kernel.wait = 700
    wait.put_back()
    assert kernel.wait == 700
    assert not (tmp_path / "audit-wait").exists()


def test_a_daemon_s_own_and_a_lower_one_stand(kernel: Kernel, tmp_path: Path) -> None:
    kernel.daemon = True
    assert AuditWait(tmp_path / "audit-wait").bound().startswith("off: the audit daemon")
    kernel.daemon, kernel.wait = False, 3
    assert AuditWait(tmp_path / "audit-wait").bound() == "on"
    AuditWait(tmp_path / "audit-wait").put_back()
    assert kernel.wait == 3


@pytest.mark.kernel
@pytest.mark.parametrize("wanted", [True, False])
def test_the_sources_say_which(kernel: Kernel, tmp_path: Path, wanted: bool) -> None:
    file = tmp_path / "audit-wait"
    AuditWait(file).bound()  # of a core that was killed
    made = Sources(range(1, 2), landlock_audit=False, trace="off", wait=AuditWait(file), bound_wait=wanted)
    try:
        if made.audit is None:
            pytest.skip(f"no audit here: {made.state['system calls']}")
        assert made.state["audit wait"] == ("on" if wanted else "off: core.bound_audit_wait")
        assert kernel.wait == (MOST if wanted else BEFORE)
    finally:
        made.close()
    assert kernel.wait == BEFORE
