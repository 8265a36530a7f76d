import pytest

from clawback.actions.vault_rewrap_delivery import ACTION as REWRAP
from clawback.errors import InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts

KEY = CredentialRef(kind="opaque", name="api-key", identifiers={})


@pytest.fixture
def with_wrapped(with_vault, vault):
    """A bench whose agent is to be given its key by a wrapping token that nobody has used."""

    def make():
        bench = with_vault()
        bench.old, bench.accessor = vault.wrapping.wrap({"value": "the-leaked-key-0123"}, ttl=7200)
        ref = CredentialRef(
            kind="vault-wrapped", name="delivery", identifiers={"accessor": bench.accessor, "of": "api-key"}
        )
        bench.store.put(bench.agent, KEY, "the-reissued-key-4567")
        bench.store.put(bench.agent, ref, bench.old)
        return bench

    return make


def test_the_old_one_gives_nothing_and_the_new_one_gives_the_present_value_once(with_wrapped, vault):
    bench = with_wrapped()
    step = bench.step(REWRAP, name="delivery")
    assert bench.accessor in step.plan().changes[0]
    assert vault.wrapping.waits(bench.old)[0], "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert vault.wrapping.unwrap(bench.old)[0] is None
    assert vault.token_lookup(step.outcome["accessor"])["creation_ttl"] == 3600
    assert step.verify().verified, "proving again spends nothing of the agent's"
    new = bench.store.current(bench.agent, "delivery")
    assert vault.wrapping.unwrap(new)[0] == {"value": "the-reissued-key-4567"}
    assert vault.wrapping.unwrap(new)[0] is None
    assert not step.verify().verified, "spent by the time it is looked at: it delivers nothing"


def test_one_that_was_spent_already_makes_it_partial_and_names_what_must_be_replaced(with_wrapped, vault):
    bench = with_wrapped()
    vault.wrapping.unwrap(bench.old)
    step = bench.step(REWRAP, name="delivery")
    assert any("api-key, which must be replaced" in line for line in step.plan().checks)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "api-key, which must be replaced" in proof.proof


def test_crashed_between_any_two_calls_it_ends_with_one_that_waits(with_wrapped, vault, crash_everywhere):
    steps = []

    def make():
        bench = with_wrapped()
        step = bench.step(REWRAP, name="delivery")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert step.verify().enforcement is Enforcement.FULL
        assert bench.store.staged(bench.agent, "delivery") is None

    assert crash_everywhere(make, check) > 8


def test_applying_twice_is_applying_once_and_a_value_replaced_in_between_is_wrapped_anew(with_wrapped, vault):
    bench = with_wrapped()
    step = bench.step(REWRAP, name="delivery")
    step.capture()
    first = step.apply()
    assert step.apply() == first
    bench.store.put(bench.agent, KEY, "a-third-key-8901")
    assert not step.verify().verified, "what waits is not what is current"
    step.apply()
    assert step.verify().verified
    assert vault.token_lookup(first["accessor"]) is None
    new = bench.store.current(bench.agent, "delivery")
    assert vault.wrapping.unwrap(new)[0] == {"value": "a-third-key-8901"}


def test_a_proof_does_not_believe_one_that_unwraps(with_wrapped, vault, monkeypatch):
    bench = with_wrapped()
    step = bench.step(REWRAP, name="delivery")
    step.capture()
    with monkeypatch.context() as lying:
        lying.setattr(type(vault), "token_revoke", lambda *_: None)  # 200, without effect
        step.apply()
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "STILL GOOD" in proof.proof
    assert vault.wrapping.waits(bench.old)[0], "looking spent nothing"
    step.apply()
    assert step.verify().verified


def test_with_vault_silent_it_is_pending(with_wrapped, bao, silence):
    bench = with_wrapped()
    step = bench.step(REWRAP, name="delivery")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(bao.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().verified


def test_a_reference_that_does_not_say_what_it_delivers_is_named(with_wrapped):
    bench = with_wrapped()
    for identifiers, error in (({"accessor": "x"}, InvalidInput), ({"accessor": "x", "of": "nothing"}, NotFound)):
        odd = CredentialRef(kind="vault-wrapped", name="odd", identifiers=identifiers)
        bench.store.put(bench.agent, odd, "wrapping-token-odd")
        with pytest.raises(error) as raised:
            bench.step(REWRAP, name="odd").plan()
        assert raised.value.hint


def test_the_documented_rights_are_enough(with_wrapped, least):
    bench = with_wrapped()
    bench.vault = least
    assert bench.step(REWRAP, name="delivery").run().enforcement is Enforcement.FULL
