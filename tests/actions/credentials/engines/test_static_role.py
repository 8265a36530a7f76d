"""A static role of OpenBao on a real PostgreSQL: the old password is refused by the database, open sessions end."""

import json

import psycopg
import pytest

from clawback.actions.vault_rotate_static_role import ACTION as ROTATE
from clawback.connectors.postgres import PostgresLogins
from clawback.errors import InvalidInput, NotFound, Unreachable
from clawback.model import Enforcement
from clawback.services.process import free_port

pytestmark = [pytest.mark.parts, pytest.mark.slow]


def _current(bench):
    return json.loads(bench.store.current(bench.agent, "orders-db"))


def test_the_old_password_is_refused_by_the_database_and_its_sessions_end(with_static_role, database):
    bench = with_static_role()
    open_session = database.connect(bench.user, bench.old)
    step = bench.step(ROTATE, name="orders-db")
    assert any("open sessions" in line for line in step.plan().changes)
    assert database.login(bench.user, bench.old)[0], "planning touches nothing"

    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "password authentication failed" in proof.proof
    accepted, said = database.login(bench.user, bench.old)
    assert not accepted
    assert "authentication failed" in said
    new = _current(bench)
    assert database.login(bench.user, new["password"])[0]
    assert new["schema"] == "orders", "what else the agent's file holds stays"
    with pytest.raises(psycopg.OperationalError):
        open_session.execute("SELECT 1")
    open_session.close()


def test_applying_twice_changes_the_password_once(with_static_role):
    bench = with_static_role()
    step = bench.step(ROTATE, name="orders-db")
    step.capture()
    first, second = step.apply(), step.apply()
    assert first["rotated"] == second["rotated"]
    assert step.verify().enforcement is Enforcement.FULL


def test_crashed_between_any_two_calls_it_ends_with_one_new_password(with_static_role, crash_everywhere):
    bench = with_static_role()
    steps = []

    def make():
        steps.append(bench.step(ROTATE, name="orders-db"))
        steps[-1].capture()
        return steps[-1].apply

    def check(_attempt):
        proof = steps[-1].verify()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        assert bench.store.staged(bench.agent, "orders-db") is None

    assert crash_everywhere(make, check) > 12


def test_a_proof_does_not_believe_an_old_password_that_was_set_again(with_static_role, database):
    bench = with_static_role()
    step = bench.step(ROTATE, name="orders-db")
    step.run()
    with database.connect("admin", database.password) as connection:
        connection.execute(f"ALTER ROLE {bench.user} PASSWORD '{bench.old}'")
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof


def test_a_proof_does_not_believe_a_rotation_that_did_not_happen(with_static_role):
    bench = with_static_role()
    step = bench.step(ROTATE, name="orders-db")
    step.capture()
    roles = bench.vault.static_roles
    roles.rotate = lambda _mount, _role: None  # 200, without effect
    try:
        step.apply()
    finally:
        del roles.rotate
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "NOT changed" in proof.proof


def test_a_proof_does_not_believe_while_a_session_from_before_is_open(with_static_role, database, monkeypatch):
    bench = with_static_role()
    session = database.connect(bench.user, bench.old)
    step = bench.step(ROTATE, name="orders-db")
    step.capture()
    end = PostgresLogins.end_sessions
    monkeypatch.setattr(
        PostgresLogins, "end_sessions", lambda *_: session.execute("SELECT clock_timestamp()").fetchone()[0].isoformat()
    )
    step.apply()
    proof = step.verify()
    assert not proof.verified
    assert "STILL OPEN" in proof.proof
    monkeypatch.setattr(PostgresLogins, "end_sessions", end)
    step.apply()
    assert step.verify().verified
    session.close()


def test_a_database_that_is_not_there_proves_nothing(with_static_role):
    bench = with_static_role()
    step = bench.step(ROTATE, name="orders-db")
    step.run()
    step.captured["ref"]["identifiers"]["port"] = str(free_port())
    with pytest.raises(Unreachable) as error:
        step.verify()
    assert _current(bench)["password"] not in str(error.value)


def test_without_a_host_the_proof_rests_on_vault_and_says_so(with_static_role):
    bench = with_static_role(host="")
    proof = bench.step(ROTATE, name="orders-db").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "was not asked" in proof.proof


def test_with_vault_silent_it_is_pending_and_completed_when_it_answers(with_static_role, bao, silence):
    bench = with_static_role()
    step = bench.step(ROTATE, name="orders-db")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL


@pytest.mark.parametrize(
    ("identifiers", "error"),
    [({"role": ""}, InvalidInput), ({"role": "nobody"}, NotFound), ({"sslmode": "maybe"}, InvalidInput),
     ({"port": "x"}, InvalidInput), ({"engine": "oracle"}, Unreachable)],
)  # fmt: skip
def test_a_reference_that_is_wrong_says_how_to_mend_it(with_static_role, identifiers, error):
    bench = with_static_role(**identifiers)
    with pytest.raises(error) as raised:
        bench.step(ROTATE, name="orders-db").capture()
    assert raised.value.hint


def test_a_database_that_speaks_no_known_words_is_no_refusal():
    with pytest.raises(Unreachable):
        PostgresLogins().logs_in({"host": "127.0.0.1", "port": str(free_port()), "sslmode": "disable"}, "a", "b")
