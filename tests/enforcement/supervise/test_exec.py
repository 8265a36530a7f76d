"""An escalated execve is decided by name alone, the sandbox's own first one too."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from clawback.errors import NotEnforced

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SPAWN = """
import subprocess
say(tried(subprocess.run, ["/usr/bin/true"]))
"""


@pytest.mark.parametrize("base", ["default", "minimal"])
def test_a_rule_decides_each_exec(scene, policy, rule, base):
    scene.supervise()
    given = policy("execve", "execveat", rules=(rule("execve"),))
    given = dataclasses.replace(given, syscalls=dataclasses.replace(given.syscalls, base=base))
    assert scene.launch(SPAWN, given).hear() == "ok"


def test_a_person_lets_the_command_itself_start(scene, policy):
    scene.supervise()

    def allow() -> None:
        for _ in range(2):
            (ask,) = scene.pending()
            assert ask["arguments"].keys() == {
                f"argument {n}" for n in range(6)
            }  # no path: it could be another by then
            scene.client.answer(ask["id"], allow=True, by="x", reason="y")

    answering = threading.Thread(target=allow)
    answering.start()
    agent = scene.launch(SPAWN, policy("execve"))
    assert agent.hear() == "ok"
    answering.join()


def test_a_command_whose_start_is_refused_does_not_start(scene, policy, rule):
    scene.supervise()
    with pytest.raises(NotEnforced, match="not permitted"):
        scene.launch(SPAWN, policy("execve", rules=(rule("execve", decision="deny"),)))
