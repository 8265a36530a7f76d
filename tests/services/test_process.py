"""A service is ready when it says so, tells why when it is not, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clawback.errors import Unreachable
from clawback.services import Service, free_port

LISTEN = """
import socket, sys, os
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen()
print("listening", sorted(os.environ), flush=True)
while True: s.accept()[0].close()
"""


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def gone(pid: int, deadline: float = 5.0) -> bool:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_starts_when_ready_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_TO_PARENT", "x")
    port = free_port()
    command = [sys.executable, "-c", LISTEN, str(port)]
    with Service("listener", command, log=tmp_path / "log", ready=lambda: answers(port)) as service:
        pid = service.pid
        assert service.running
    assert gone(pid)
    assert "listening" in (tmp_path / "log").read_text()
    assert "PRIVATE_TO_PARENT" not in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    service.stop()


def test_silent_service_is_unreachable_and_gone(tmp_path: Path) -> None:
    service = Service(
        "silent",
        [sys.executable, "-c", "print('password=hunter2hunter2', flush=True); import time; time.sleep(60)"],
        log=tmp_path / "log",
        ready=(tmp_path / "never").exists,
        deadline=0.5,
    )
    with pytest.raises(Unreachable) as caught:
        service.start()
    assert "did not answer within 0.5 s" in caught.value.message
    assert "hunter2" not in caught.value.hint
    assert not service.running


def test_ending_at_start_tells_the_logs_tail(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no database')"]
    with pytest.raises(Unreachable, match="ended with status 1") as caught:
        Service("broken", command, log=tmp_path / "log", ready=lambda: False).start()
    assert "no database" in caught.value.hint


def test_stop_kills_one_that_ignores_term_and_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    child = tmp_path / "child"
    service = Service(
        "stubborn", [sys.executable, "-c", code], log=tmp_path / "log", ready=lambda: child.read_text() != ""
    )
    service.start()
    pid = service.pid
    service.stop(grace=0.1)
    assert gone(pid)
    assert gone(int(child.read_text()))


def test_dies_with_its_parent_and_not_with_the_thread_that_asked(tmp_path: Path) -> None:
    code = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from clawback.services import Service\n"
        "def go():\n"
        "    s = Service('child', ['sleep', '60'], log=Path(sys.argv[1]))\n"
        "    s.start()\n"
        "    print('pid', s.pid, flush=True)\n"
        "t = threading.Thread(target=go); t.start(); t.join()\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = next(int(line.split()[1]) for line in parent.stdout if line.startswith(b"pid"))
    assert not gone(pid, 0.3)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_piped(tmp_path: Path) -> None:
    with Service("cat", ["cat"], log=tmp_path / "log", piped=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdin.write(b"line\n")
        service.stdin.flush()
        assert service.stdout.readline() == b"line\n"
