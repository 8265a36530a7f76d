import json

import pytest

from clawback.actions.vault_replace_kv import ACTION as REPLACE
from clawback.errors import InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts


@pytest.fixture
def with_kv(bao, with_vault):
    """A bench whose agent may read a stored secret, of which its first version leaked."""

    def make(**identifiers):
        bench = with_vault()
        bench.path = f"{bench.agent}/api"  # which its policy lets it read
        bao._call("POST", f"secret/data/{bench.path}", {"data": {"key": "leaked-value-0123", "user": "orders"}})
        ref = CredentialRef(
            kind="vault-kv", name="api-key", identifiers={"mount": "secret", "path": bench.path, **identifiers}
        )
        value = "leaked-value-0123" if identifiers.get("field") else json.dumps({"key": "leaked-value-0123"})
        bench.store.put(bench.agent, ref, value)
        bench.store.values.add("leaked-value-0123")
        bench.newest = max(bench.vault.kv.versions("secret", bench.path))
        return bench

    return make


def _supply(bench, value):
    (ref,) = (ref for ref in bench.store.refs(bench.agent) if ref.name == "api-key")
    bench.store.stage(bench.agent, ref, value)
    bench.store.values.add("supplied-value-4567")


def _read(bench, version):
    return bench.vault.kv.read_as(bench.grants.token, "secret", bench.path, version)[0]


def test_the_leaked_version_is_refused_and_the_supplied_value_is_what_the_agent_reads(with_kv):
    bench = with_kv(field="key")
    _supply(bench, "supplied-value-4567")
    step = bench.step(REPLACE, name="api-key")
    plan = step.plan()
    assert any("with the value that was supplied" in line for line in plan.changes)
    assert _read(bench, bench.newest), "planning touches nothing"

    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "only its own issuer can refuse it" in proof.proof, "what was copied is not closed by Vault, and it says so"
    assert f"version {bench.newest} read by the agent: refused" in proof.proof
    assert _read(bench, bench.newest) is None
    assert _read(bench, 0) == {"key": "supplied-value-4567", "user": "orders"}, "other fields stay"
    assert bench.store.current(bench.agent, "api-key") == "supplied-value-4567"
    refs = {ref.name: ref for ref in bench.store.refs(bench.agent)}
    assert refs["api-key"].identifiers["version"] == str(bench.newest + 1)


def test_all_of_a_secret_is_replaced_by_a_json_object(with_kv):
    bench = with_kv()
    _supply(bench, '{"key": "supplied-value-4567"}')
    assert bench.step(REPLACE, name="api-key").run().verified
    assert _read(bench, 0) == {"key": "supplied-value-4567"}


def test_without_a_supplied_value_the_leaked_one_is_refused_and_somebody_is_asked_for_one(with_kv):
    bench = with_kv(field="key")
    step = bench.step(REPLACE, name="api-key")
    assert any("NO NEW VALUE" in line for line in step.plan().checks)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "NO NEW VALUE" in proof.proof
    assert _read(bench, 0) is None
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL), undone.proof
    assert _read(bench, 0)["key"] == "leaked-value-0123"


def test_undoing_makes_the_old_version_readable_and_leaves_the_new_one(with_kv):
    bench = with_kv(field="key")
    _supply(bench, "supplied-value-4567")
    step = bench.step(REPLACE, name="api-key")
    step.run()
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL), undone.proof
    assert "stays the newest" in undone.proof
    assert _read(bench, bench.newest)["key"] == "leaked-value-0123"
    assert step.revert().verified


def test_older_versions_stay_unless_every_one_is_to_go(with_kv):
    bench = with_kv(field="key")
    step = bench.step(REPLACE, name="api-key")
    assert any("stay readable" in line for line in step.plan().checks)
    step.run()
    assert _read(bench, bench.newest - 1)
    assert bench.step(REPLACE, name="api-key", every=True).run().verified
    assert not any(_read(bench, number) for number in range(1, bench.newest + 1))


def test_crashed_between_any_two_calls_it_ends_with_one_new_version(with_kv, crash_everywhere):
    steps = []

    def make():
        bench = with_kv(field="key")
        _supply(bench, "supplied-value-4567")
        step = bench.step(REPLACE, name="api-key")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert step.verify().verified
        assert max(bench.vault.kv.versions("secret", bench.path)) == bench.newest + 1
        assert bench.store.staged(bench.agent, "api-key") is None

    assert crash_everywhere(make, check) > 8


def test_applying_twice_is_applying_once(with_kv):
    bench = with_kv(field="key")
    _supply(bench, "supplied-value-4567")
    step = bench.step(REPLACE, name="api-key")
    step.capture()
    assert step.apply() == step.apply()
    assert step.verify().verified


def test_a_proof_does_not_believe_a_version_that_was_undeleted(with_kv):
    bench = with_kv(field="key")
    step = bench.step(REPLACE, name="api-key")
    step.run()
    bench.vault.kv.undelete("secret", bench.path, [bench.newest])
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "READ" in proof.proof


def test_a_proof_does_not_believe_a_new_version_that_says_something_else(with_kv, bao):
    bench = with_kv(field="key")
    _supply(bench, "supplied-value-4567")
    step = bench.step(REPLACE, name="api-key")
    step.capture()
    patch = bench.vault.kv.patch
    bench.vault.kv.patch = lambda mount, path, _data, after: patch(mount, path, {"key": "other"}, after=after)
    try:
        step.apply()
    finally:
        del bench.vault.kv.patch
    proof = step.verify()
    assert not proof.verified
    assert "NOT as supplied" in proof.proof


def test_a_new_version_that_somebody_else_wrote_is_not_taken_for_ours(with_kv, bao):
    bench = with_kv(field="key")
    _supply(bench, "supplied-value-4567")
    step = bench.step(REPLACE, name="api-key")
    step.capture()
    bao._call("POST", f"secret/data/{bench.path}", {"data": {"key": "theirs"}})
    step.apply()
    assert step.outcome["version"] == bench.newest + 2
    assert step.verify().verified


def test_with_vault_silent_it_is_pending(with_kv, bao, silence):
    bench = with_kv(field="key")
    step = bench.step(REPLACE, name="api-key")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(bao.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().verified


def test_what_is_wrong_with_a_reference_or_a_value_is_said_before_anything_is_touched(with_kv):
    bench = with_kv()
    _supply(bench, "supplied-value-4567")
    with pytest.raises(InvalidInput, match="no JSON object"):
        bench.step(REPLACE, name="api-key").plan()
    for identifiers, error in (({}, InvalidInput), ({"path": "nobody/nothing"}, NotFound)):
        odd = CredentialRef(kind="vault-kv", name="odd", identifiers=identifiers)
        bench.store.put(bench.agent, odd, "leaked-value-0123")
        with pytest.raises(error) as raised:
            bench.step(REPLACE, name="odd").capture()
        assert raised.value.hint


def test_the_documented_rights_are_enough(with_kv, least):
    for field in ("key", ""):
        bench = with_kv(field=field)
        bench.vault = least
        _supply(bench, "supplied-value-4567" if field else '{"key": "supplied-value-4567"}')
        step = bench.step(REPLACE, name="api-key")
        assert step.run().verified
        assert step.revert().verified


def test_what_the_agent_could_not_read_is_read_by_us(with_kv, bao):
    bench = with_kv(field="key")
    bao._call("PUT", f"sys/policies/acl/{bench.agent}", {"policy": 'path "cubbyhole/x" { capabilities = ["read"] }'})
    _supply(bench, "supplied-value-4567")
    proof = bench.step(REPLACE, name="api-key").run()
    assert proof.verified, proof.proof
    assert "not seen to read it before" in proof.proof
    assert "read by us: as supplied" in proof.proof
