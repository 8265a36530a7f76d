import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.connectors.secret_store import FileSecretStore
from clawback.errors import ClawbackError, InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef


def ref(number: int = 0, name: str = "token") -> CredentialRef:
    return CredentialRef(kind="vault-token", name=name, identifiers={"accessor": f"a{number}"})


def test_a_rotation_keeps_the_old_value_for_the_proof_until_it_is_discarded(store):
    store.put("refunds", ref(0), "zero")
    store.stage("refunds", ref(1), "one")
    assert (store.current("refunds", "token"), store.staged("refunds", "token")) == ("zero", "one")
    assert store.staged_ref("refunds", "token") == ref(1)
    store.promote("refunds", "token")
    assert (store.current("refunds", "token"), store.old("refunds", "token")) == ("one", "zero")
    assert store.staged("refunds", "token") is None
    assert store.refs("refunds") == (ref(1),)
    store.discard("refunds", "token")
    assert store.old("refunds", "token") is None
    assert store.current("refunds", "token") == "one"


def test_promoting_twice_is_promoting_once(store):
    store.put("refunds", ref(0), "zero")
    store.stage("refunds", ref(1), "one")
    store.promote("refunds", "token")
    store.promote("refunds", "token")
    assert (store.current("refunds", "token"), store.old("refunds", "token")) == ("one", "zero")


def test_a_begun_value_is_remembered_until_it_is_staged(store):
    assert store.begin("refunds", "token") is False
    assert store.asked("refunds", "token")
    assert store.begin("refunds", "token") is True
    store.stage("refunds", ref(1), "one")
    assert store.begin("refunds", "token") is False


def test_only_the_owner_can_read_and_nothing_discarded_stays_on_disk(store, tmp_path):
    store.put("refunds", ref(0), "value-zero")
    store.stage("refunds", ref(1), "value-one")
    store.promote("refunds", "token")
    store.discard("refunds", "token")
    for path in [tmp_path / "secrets", *(tmp_path / "secrets").rglob("*")]:
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700
        else:
            assert path.stat().st_mode & 0o777 == 0o600
            assert "value-zero" not in path.read_text()
    assert (tmp_path / "secrets/refunds/token/current").read_text() == "value-one"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a" * 129, "a\n"])
def test_names_that_could_leave_the_folder_are_refused(store, name):
    with pytest.raises(InvalidInput):
        store.put("refunds", ref(0, name), "value")
    with pytest.raises(InvalidInput):
        store.current(name, "token")


def test_a_full_disk_is_a_part_that_does_not_answer(store, monkeypatch):
    store.put("refunds", ref(0), "zero")

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unreachable, match="No space left") as said:
        store.stage("refunds", ref(1), "a-secret-value")
    assert "a-secret-value" not in str(said.value)
    monkeypatch.undo()
    assert (store.current("refunds", "token"), store.staged("refunds", "token")) == ("zero", None)
    store.stage("refunds", ref(1), "one")
    assert store.staged("refunds", "token") == "one"


def test_what_is_not_there_is_not_found(store):
    with pytest.raises(NotFound):
        store.current("nobody", "token")
    assert store.refs("nobody") == ()
    assert store.old("nobody", "token") is None


def test_a_damaged_reference_names_the_file_and_not_the_value(store, tmp_path):
    store.put("refunds", ref(0), "the-value")
    (damaged,) = (tmp_path / "secrets/refunds/token").glob("v-*/ref.json")
    damaged.write_text("[]")
    with pytest.raises(ClawbackError) as error:
        store.refs("refunds")
    assert str(damaged) in error.value.message
    assert "the-value" not in error.value.message


class Cut(BaseException):
    """The machine stops here."""


STEPS = ("put", "stage", "promote", "discard", "begin", "abandon")


@settings(max_examples=150, deadline=None)
@given(plan=st.lists(st.tuples(st.sampled_from(STEPS), st.none() | st.integers(0, 25)), max_size=12))
def test_cut_off_at_any_system_call_each_value_is_the_one_before_or_the_one_after(tmp_path_factory, plan):
    """A model of three slots; a step that was cut off has happened or not, and its value goes with its reference."""
    folder = tmp_path_factory.mktemp("store")
    store = FileSecretStore(folder)
    states = {(None, None, None)}  # what (current, next, old) may be
    for number, (step, cut) in enumerate(plan):
        after = {_model(state, step, number) for state in states}
        if _run(store, step, number, cut):
            states = after
        else:
            states |= after | {half for state in states for half in _halfway(state, step)}
        seen = _read(store)
        assert seen in states
        states = {seen}


def _halfway(state, step):
    current, following, _ = state
    if step == "promote" and following is not None and current is not None:
        yield (current, following, None)  # old is being replaced
        yield (following, None, current)


def _model(state, step, number):
    current, following, old = state
    if step == "put":
        return (number, following, old)
    if step == "stage":
        return (current, number, old)
    if step == "promote" and following is not None:
        return (following, None, old if current is None else current)
    if step == "discard":
        return (current, following, None)
    if step == "abandon":
        return (current, None, old)
    return state


def _run(store, step, number, cut) -> bool:
    """Do one step, cut off at the cut-th line that is traced; True if it went through."""
    count = 0

    def trace(frame, event, _arg):
        nonlocal count
        if frame.f_code.co_filename.endswith("secret_store.py"):
            if event == "line":
                if cut is not None and count >= cut:
                    raise Cut
                count += 1
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        if step in ("put", "stage"):
            getattr(store, step)("agent", ref(number), str(number))
        else:
            getattr(store, step)("agent", "token")
    except Cut:
        return False
    finally:
        sys.settrace(before)
    return True


def _read(store):
    try:
        current = int(store.current("agent", "token"))
    except NotFound:
        current = None
    following, old = store.staged("agent", "token"), store.old("agent", "token")
    if current is not None:
        (found,) = store.refs("agent")
        assert found == ref(current)
    if following is not None:
        assert store.staged_ref("agent", "token") == ref(int(following))
    return (current, None if following is None else int(following), None if old is None else int(old))


WRITER = """
import sys
from pathlib import Path
from clawback.connectors.secret_store import FileSecretStore
from clawback.model import CredentialRef
store = FileSecretStore(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.stage("agent", CredentialRef(kind="k", name="n", identifiers={"number": str(number)}), str(number) * 500)
    store.promote("agent", "n")
"""


@pytest.mark.slow
def test_killed_while_rotating_the_store_reads_whole_and_goes_on(tmp_path):
    store = FileSecretStore(tmp_path)
    store.put("agent", CredentialRef(kind="k", name="n", identifiers={"number": "0"}), "0" * 500)
    for _ in range(15):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            child.stdout.readline()
            before, deadline = store.current("agent", "n"), time.monotonic() + 20
            while store.current("agent", "n") == before and time.monotonic() < deadline:
                pass
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        (found,) = store.refs("agent")
        value = store.current("agent", "n")
        assert value == found.identifiers["number"] * 500
        store.promote("agent", "n")  # what a resumed response does
        (found,) = store.refs("agent")
        assert store.current("agent", "n") == found.identifiers["number"] * 500
        assert store.staged("agent", "n") is None
    assert len(list((tmp_path / "agent/n").glob("v-*"))) <= 2
