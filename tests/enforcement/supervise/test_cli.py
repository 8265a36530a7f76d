"""`clawback escalations`: what waits is listed, allowed or denied by whoever is at the keyboard."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_a_person_allows_and_denies_by_the_command_line(scene, policy):
    def clawback(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clawback", "--state", str(scene.state), "escalations", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert clawback().returncode == 3  # nobody supervises
    scene.supervise()
    assert clawback().stdout == "nothing waits\n"
    agent = scene.launch(
        """
for path in ("/tmp/\\x1b[31mred", "/tmp/plain"):
    say(tried(os.mkdir, path))
""",
        policy("mkdir", filesystem="read-write"),
    )
    (ask,) = scene.pending()
    listed = clawback("list")
    assert ask["id"] in listed.stdout
    assert "\x1b" not in listed.stdout
    (same,) = json.loads(clawback("--json").stdout)
    assert same["arguments"]["path"] == "/tmp/\\x1b[31mred"
    denied = clawback("deny", ask["id"], "--reason", "no colours", "--by", "kim")
    assert (denied.returncode, denied.stdout) == (0, "alpha: mkdir: denied\n")
    assert agent.hear() == "EPERM"
    (ask,) = scene.pending()
    allowed = clawback("allow", ask["id"], "--reason", "plain")
    assert (allowed.returncode, allowed.stdout) == (0, "alpha: mkdir: done\n")
    assert agent.hear() == "ok"
    assert clawback("allow", ask["id"], "--reason", "again").returncode == 4
    first, second = scene.decisions()
    assert first["by"].startswith("kim (operator:")
    assert (first["allowed"], first["reason"]) == (False, "no colours")
    assert (second["allowed"], second["ask"]) == (True, ask["id"])
