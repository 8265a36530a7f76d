"""Nothing phones home: with every address answering, a Prefect server and a worker send nothing beyond loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from clawback.services.prefect_server import PrefectServer

SCRIPT = Path(__file__).with_name("quiet.py")
pytestmark = [pytest.mark.parts, pytest.mark.slow]


def heard(state: Path, *options: str) -> list[str]:
    """The addresses that were sent to."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs util-linux and iproute2")
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--user", "--map-root-user"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this host gives no network namespace")
    done = subprocess.run(
        [*own, sys.executable, str(SCRIPT), str(state), *options],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_who_calls_out_is_heard(tmp_path: Path) -> None:
    assert "198.51.100.7" in heard(tmp_path, "--talk")


def test_a_server_a_worker_a_flow_and_a_question_call_nobody(tmp_path: Path) -> None:
    assert heard(tmp_path) == []


def test_the_ui_may_call_nobody_either(tmp_path: Path) -> None:
    with PrefectServer(tmp_path, deadline=120) as server:
        page = httpx.get(server.api_url.removesuffix("/api") + "/", timeout=30)
        policy = page.headers["content-security-policy"]
        assert page.headers["content-type"].startswith("text/html")
        allowed = next(part for part in policy.split("; ") if part.startswith("connect-src ")).split()[1:]
        assert allowed
        assert all(one == "'self'" or f":{server.port}" in one for one in allowed)
        # So the page itself need not be trusted; its own settings say the same.
        user, password = (tmp_path / "prefect" / "credential").read_text().split(":")
        shown = httpx.get(f"{server.api_url}/admin/settings", auth=(user, password), timeout=30).json()
        assert shown["server"]["analytics_enabled"] is False
        assert shown["server"]["ui"]["show_promotional_content"] is False
