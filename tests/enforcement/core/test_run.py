"""`clawback run`: it ends as its program does, also when the core comes and goes meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clawback.cli import run as run_command
from clawback.connectors.secret_store import FileSecretStore
from clawback.enforcement.core.client import CoreClient
from clawback.errors import Unreachable
from clawback.model import CredentialRef

pytestmark = pytest.mark.kernel


def run(core, policy, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLAWBACK_")}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "clawback",
            "--state",
            str(core.state),
            "run",
            "--policy",
            str(policy),
            *options,
            "--",
            *words,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean,
    )


@pytest.fixture
def policy(core):
    path = core.state / "policy.yaml"
    path.write_text(
        "apiVersion: openshell.nvidia.com/v1\nkind: SandboxPolicy\nmetadata: {name: test}\n"
        "spec:\n  isolation: {network: none}\n"
    )
    return path


WAIT = "import sys; print('up', flush=True); sys.stdin.readline(); raise SystemExit(7)"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_core_restarts_and_run_ends_as_the_agent_does(core, policy, number):
    process = run(core, policy, "/usr/bin/python3", "-c", WAIT, options=("--agent", "a"))
    assert process.stdout.readline() == b"up\n"
    core.end(number)
    core.start()
    assert core.client.agent("a").state == "running"
    out, err = process.communicate(b"\n", timeout=30)
    assert (process.returncode, out) == (7, b""), err
    # Told once: that it lives on, or, where the core was killed before it had answered, that it was being started.
    assert err.count(b"the core went away") + err.count(b"the core did not answer") == 1


@pytest.mark.slow
@pytest.mark.parametrize("started", ["ours", "another's", "none"])
def test_the_core_is_killed_before_it_has_said_that_the_agent_runs(core, make_spec, capfd, started):
    class Cut(CoreClient):
        def launch(self, spec, **more):
            if started != "none":
                super().launch(spec if started == "ours" else replace(spec, request_id="2"), **more)
            core.end(signal.SIGKILL)
            core.start()
            raise Unreachable("the core does not answer")

    spec = replace(make_spec("import time; time.sleep(0.5); raise SystemExit(7)", agent="a"), request_id="1")
    status = run_command._run(Cut(core.state / "run" / "core.sock"), spec)
    said = capfd.readouterr().err
    assert "did not answer as a was being started" in said
    assert status == (7 if started == "ours" else 125)
    assert ("knows of no such start" in said) is (started != "ours")


@pytest.mark.slow
def test_without_a_core_it_ends_at_once_and_nothing_is_said_of_an_agent(core, policy):
    core.end()
    process = run(core, policy, "/usr/bin/python3", "-c", "pass")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert b"the core does not answer" in err
    assert b"starts" not in err


@pytest.mark.slow
def test_an_agent_that_ends_while_no_core_is_there(core, policy):
    process = run(core, policy, "/usr/bin/python3", "-c", WAIT, options=("--agent", "a"))
    assert process.stdout.readline() == b"up\n"
    core.end(signal.SIGKILL)
    process.stdin.write(b"\n")
    process.stdin.flush()
    record = core.records()[0]
    core.until(lambda: not Path(f"/proc/{record.pid}").exists())
    core.start()
    process.communicate(timeout=30)
    assert process.returncode == 7


@pytest.mark.slow
def test_what_it_is_started_as_is_known(core, policy):
    process = run(
        core,
        policy,
        "/usr/bin/python3",
        "-c",
        WAIT,
        options=("--agent", "a", "--tenant", "acme", "--team", "red", "--tag", "env=prod", "--tag", "tier=1"),
    )
    assert process.stdout.readline() == b"up\n"
    info = core.client.agent("a")
    assert (info.tenant, info.team, info.tags) == ("acme", "red", ("env=prod", "tier=1"))
    process.communicate(b"\n", timeout=30)
    assert process.returncode == 7


SHOW = "import os; print(os.environ['API_KEY'], open('/run/secrets/api').read(), open('/run/secrets/plain').read())"


@pytest.mark.slow
def test_credentials_are_ordered_by_name_and_the_value_is_nowhere_else(core, policy):
    def stored(name: str, value: str) -> None:
        words = [sys.executable, "-m", "clawback", "--state", str(core.state), "secret", "put", "a", name]
        subprocess.run(words, input=value.encode(), check=True, timeout=60)

    stored("api", "the-value-of-it")
    stored("plain", "given-as-it-is")
    options = ("--agent", "a", "--credential", "api:placeholder:API_KEY:api.example.com,http://127.0.0.1:8080")
    process = run(core, policy, "/usr/bin/python3", "-c", SHOW, options=(*options, "--credential", "plain"))
    out, err = process.communicate(timeout=30)
    assert out.split() == [b"clawback:resolve:api", b"clawback:resolve:api", b"given-as-it-is"], err
    api, plain = core.client.agent("a").credentials
    assert (api.kind, api.delivery, api.variable) == ("opaque", "placeholder", "API_KEY")
    assert api.hosts == ("api.example.com", "http://127.0.0.1:8080")
    assert plain.delivery == "file"
    assert b"the-value-of-it" not in (core.state / "agents" / "a" / "spec.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("credential", "words"),
    [
        ("api:placeholder:API_KEY:*.com", b"too wide"),
        ("nothing-stored", b"no value"),
        ("api:placeholder:API_KEY", b"not understood"),
        ("api:placeholder:A-B:example.com", b"no variable"),
    ],
)
def test_a_credential_that_cannot_be_given_starts_nothing(core, policy, credential, words):
    FileSecretStore(core.state / "secrets").put("a", CredentialRef(kind="opaque", name="api"), "v")
    process = run(core, policy, "/usr/bin/python3", "-c", "1", options=("--agent", "a", "--credential", credential))
    _, err = process.communicate(timeout=30)
    assert process.returncode in {2, 125}
    assert words in err
    assert core.client.agents() == ()
