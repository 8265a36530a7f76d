import base64

import pytest

from clawback.actions.vault_raise_transit_minimum import ACTION as RAISE
from clawback.connectors.vault import VaultConnector
from clawback.errors import ClawbackError, NotFound, Unreachable
from clawback.model import Enforcement

pytestmark = pytest.mark.parts

TEXT = base64.b64encode(b"what the agent stole").decode()


def test_what_was_encrypted_before_is_refused_and_undoing_brings_it_back(with_key, transit, vault):
    bench = with_key()
    step = bench.step(RAISE, name="orders-key")
    plan = step.plan()
    assert any(line.startswith("DATA") and "version 1 " in line for line in plan.checks)
    assert vault.transit.key("transit", bench.agent)["latest"] == 1, "planning touches nothing"
    assert RAISE.consent

    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "too old" in proof.proof
    with pytest.raises(ClawbackError, match="400"):
        transit("POST", f"decrypt/{bench.agent}", {"ciphertext": bench.stolen})

    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL), undone.proof
    assert transit("POST", f"decrypt/{bench.agent}", {"ciphertext": bench.stolen})["plaintext"] == TEXT
    assert vault.transit.key("transit", bench.agent) == {
        "latest": 2, "decrypts_from": 1, "encrypts_from": 0, "exportable": False
    }  # fmt: skip
    assert step.revert().verified


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "rsa-2048", "hmac", "chacha20-poly1305", "aes128-gcm96"])
def test_every_kind_of_key_is_proved_by_what_it_can_do(with_key, kind):
    bench = with_key(type=kind, **({"key_size": 32} if kind == "hmac" else {}))
    step = bench.step(RAISE, key=bench.agent)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "made anew: taken" in proof.proof
    assert step.revert().verified


def test_a_derived_key_too(with_key):
    bench = with_key(derived=True)
    assert bench.step(RAISE, name="orders-key").run().enforcement is Enforcement.FULL


def test_an_exportable_key_is_never_said_to_be_closed(with_key):
    bench = with_key(exportable=True)
    step = bench.step(RAISE, name="orders-key")
    assert any("exportable" in line for line in step.plan().checks)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)


def test_applying_twice_rotates_once(with_key, vault):
    bench = with_key()
    step = bench.step(RAISE, name="orders-key")
    step.capture()
    assert step.apply() == step.apply()
    assert vault.transit.key("transit", bench.agent)["latest"] == 2
    assert step.verify().enforcement is Enforcement.FULL


def test_crashed_between_any_two_calls_it_ends_with_one_new_version(with_key, vault, crash_everywhere):
    steps = []

    def make():
        bench = with_key()
        step = bench.step(RAISE, name="orders-key")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert step.verify().enforcement is Enforcement.FULL
        assert vault.transit.key("transit", bench.agent)["latest"] == 2

    assert crash_everywhere(make, check) > 6


def test_a_proof_does_not_believe_a_minimum_that_was_lowered_again(with_key, vault):
    bench = with_key()
    step = bench.step(RAISE, name="orders-key")
    step.run()
    vault.transit.set_minimum("transit", bench.agent, decrypts_from=1, encrypts_from=0)
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "TAKEN" in proof.proof


def test_a_proof_does_not_believe_calls_without_effect(with_key, vault):
    bench = with_key()
    step = bench.step(RAISE, name="orders-key")
    step.capture()
    vault.transit.set_minimum = lambda *_, **__: None
    try:
        step.apply()
    finally:
        del vault.transit.set_minimum
    assert not step.verify().verified


def test_without_the_right_to_use_the_key_it_is_partial_and_says_so(with_key, bao, vault, tmp_path):
    bench = with_key()
    bao._call(
        "PUT",
        "sys/policies/acl/keys-only",
        {"policy": 'path "transit/keys/*" { capabilities = ["read", "update"] }'},
    )
    token, _ = vault.token_create(policies=["keys-only"], ttl="1h", meta={}, orphan=True)
    (tmp_path / "token").write_text(token)
    bench.vault = VaultConnector(bao.address, tmp_path / "token")
    step = bench.step(RAISE, name="orders-key")
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "nothing made with an old version was tried" in proof.proof
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL)


def test_with_vault_silent_it_is_pending(with_key, bao, silence):
    bench = with_key()
    step = bench.step(RAISE, name="orders-key")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(bao.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().verified


def test_an_unknown_key_is_named(with_key):
    bench = with_key()
    with pytest.raises(NotFound, match="nobody"):
        bench.step(RAISE, key="nobody").plan()


@pytest.mark.parametrize("params", [{}, {"name": "a", "key": "b"}])
def test_a_key_is_given_once(params):
    with pytest.raises(ValueError):
        RAISE.params(agent="a", **params)
