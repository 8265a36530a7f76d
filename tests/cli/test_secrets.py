"""Values go into the store by file or standard input, and no command shows one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.cli.secrets import read_credential
from clawback.connectors.secret_store import FileSecretStore
from clawback.errors import InvalidInput

pytestmark = pytest.mark.slow


def secret(state: Path, *words: str, value: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "clawback", "--state", str(state), "secret", *words],
        input=value,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=state,
    )


def test_a_value_is_stored_as_it_is_and_never_shown(tmp_path):
    done = secret(tmp_path, "put", "a", "key", "--kind", "vault-kv", "--id", "mount=kv", value=b" one\n")
    assert done.returncode == 0, done.stderr
    store = FileSecretStore(tmp_path / "secrets")
    assert store.current("a", "key") == " one\n"
    (tmp_path / "value").write_text("another")
    assert secret(tmp_path, "put", "a", "key", "--file", str(tmp_path / "value")).returncode == 0
    assert store.current("a", "key") == "another"
    listed = secret(tmp_path, "list", "a", "--json")
    assert json.loads(listed.stdout) == [{"name": "key", "kind": "opaque", "identifiers": {}}]
    assert b"another" not in listed.stdout + listed.stderr + done.stdout + done.stderr
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("a", "key"), b""),
        (("a", "key"), b"\xff\xfe"),
        (("a", "key"), b"x" * ((1 << 20) + 1)),
        (("a", "../key"), b"x"),
        (("a", "key", "--kind", "gold"), b"x"),
        (("a", "key", "--id", "mount"), b"x"),
        (("a", "key", "--file", "/no/such/file"), b""),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, words, value):
    said = secret(tmp_path, "put", *words, value=value)
    assert said.returncode == 2
    assert b"error: " in said.stderr
    assert b"hint: " in said.stderr
    assert not (tmp_path / "secrets" / "a" / "key" / "current").exists()


def test_the_next_value_waits_beside_the_present_one_under_the_same_identifiers(tmp_path):
    secret(tmp_path, "put", "a", "key", "--kind", "vault-kv", "--id", "path=a/api", value=b"one")
    done = secret(tmp_path, "put", "a", "key", "--next", value=b"two")
    assert done.returncode == 0, done.stderr
    store = FileSecretStore(tmp_path / "secrets")
    assert (store.current("a", "key"), store.staged("a", "key")) == ("one", "two")
    assert store.staged_ref("a", "key") == store.refs("a")[0]
    assert secret(tmp_path, "put", "a", "other", "--next", value=b"x").returncode == 4
    assert secret(tmp_path, "put", "a", "key", "--next", "--kind", "vault-kv", value=b"x").returncode == 2


def test_what_a_run_is_given():
    plain = read_credential("key")
    assert (plain.name, plain.delivery) == ("key", "file")
    placed = read_credential("key:placeholder::https://a.example:8443,b.example")
    assert (placed.variable, placed.hosts) == ("", ("https://a.example:8443", "b.example"))


@pytest.mark.parametrize(
    "text", ["", ":placeholder:A:b.example", "key:file", "key:placeholder:A", "key:placeholder:A:", "key:x:A:b.example"]
)
def test_what_it_is_not(text):
    with pytest.raises(InvalidInput, match="--credential"):
        read_credential(text)
