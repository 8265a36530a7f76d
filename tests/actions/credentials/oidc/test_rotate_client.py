"""Clients of a real identity provider: a new secret, or a new client, and the old secret refused."""

import json

import pytest

from clawback.actions.oidc_revoke_token import ACTION as REVOKE
from clawback.actions.oidc_rotate_client import ACTION as ROTATE
from clawback.errors import NotFound, Refused, Unreachable
from clawback.log import redact_text
from clawback.model import Enforcement

pytestmark = pytest.mark.parts


def accepted(bench, value):
    return bench.oidc.authenticates(bench.identifiers["issuer"], value)[0]


def test_the_old_secret_is_refused_and_the_new_one_accepted(with_oidc, provider):
    bench = with_oidc("rotate")
    step = bench.step(ROTATE, name="client")
    assert bench.identifiers["client_id"] in step.plan().changes[0]
    assert accepted(bench, bench.client), "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "refused (token endpoint: HTTP 401 invalid_client)" in proof.proof
    assert redact_text(proof.proof) == proof.proof, "the journal leaves the proof as it is"
    assert step.outcome["client_id"] == bench.identifiers["client_id"]
    assert not accepted(bench, bench.client)
    current = bench.store.current(bench.agent, "client")
    assert provider.credentials_token(current, scope="read")
    first, second = step.outcome, step.apply()
    assert first == second
    assert bench.store.current(bench.agent, "client") == current
    assert step.verify().enforcement is Enforcement.FULL
    again = bench.step(ROTATE, name="client")
    assert again.run().verified, "the registration access token was replaced too, and kept"


def test_where_secrets_are_kept_a_new_client_takes_its_place(with_oidc, provider):
    bench = with_oidc("keep")
    step = bench.step(ROTATE, name="client")
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "must be granted anew" in proof.proof
    new = bench.store.refs(bench.agent)[0]
    assert new.identifiers["client_id"] == step.outcome["client_id"] != bench.identifiers["client_id"]
    assert not accepted(bench, bench.client)
    current = bench.store.current(bench.agent, "client")
    assert provider.credentials_token(current, scope="read")
    (ours,) = [ref for ref in bench.store.refs("clawback") if ref.identifiers["client_id"] == step.outcome["client_id"]]
    managing = bench.store.current("clawback", ours.name)
    registered = bench.oidc.registration(provider.issuer, ours.identifiers["uri"], managing)
    assert registered["client_name"] == "agent"
    assert registered["redirect_uris"] == ["https://agent.test/callback"]
    assert step.apply()["client_id"] == new.identifiers["client_id"]
    assert step.verify().verified


@pytest.mark.parametrize("policy", ["rotate", "keep"])
def test_tokens_of_the_client_are_revoked_by_its_new_secret_or_by_ours(with_oidc, policy):
    bench = with_oidc(policy)
    assert bench.step(ROTATE, name="client").run().verified
    proof = bench.step(REVOKE, name="tokens").run()
    assert proof.verified, proof.proof


@pytest.mark.parametrize(
    ("policy", "name", "replace"),
    [("rotate", "steady", False), ("rotate", "agent", False), ("keep", "steady", False), ("keep", "agent", True)],
)
def test_cut_off_anywhere_the_old_secret_ends_refused_and_a_new_one_accepted(
    with_oidc, crash_everywhere, policy, name, replace
):
    steps = []

    def make():
        bench = with_oidc(policy, name=name)
        step = bench.step(ROTATE, name="client", replace=replace)
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        proof = step.verify()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        assert not accepted(bench, bench.client)
        if (policy, name) == ("rotate", "steady"):
            assert step.outcome["client_id"] == bench.identifiers["client_id"], "read back, not made anew"

    assert crash_everywhere(make, check) > 10


def test_an_update_that_was_cut_off_and_took_the_registration_token_along_is_not_claimed(with_oidc):
    """Such an answer cannot be had again: the old client lives, nobody here can delete it, and that is said."""
    bench, real = with_oidc("keep"), None

    def update(*args):
        real.registration_update(*args)
        raise Unreachable("cut off")

    real, bench.oidc = bench.oidc, Lying(bench.oidc, registration_update=update)
    step = bench.step(ROTATE, name="client")
    step.capture()
    with pytest.raises(Unreachable):
        step.apply()
    bench.oidc = real
    step.apply()
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof
    assert f"deleting {bench.identifiers['client_id']} was refused" in proof.proof


def test_a_client_that_clawback_may_not_manage_is_said_before_anything_is_done(with_oidc):
    bench = with_oidc(managed=False)
    step = bench.step(ROTATE, name="client")
    with pytest.raises(NotFound, match="no registration of") as error:
        step.plan()
    assert "oidc-registration" in error.value.hint
    assert accepted(bench, bench.client)


def test_a_registration_token_that_is_dead_fails_it_and_nothing_is_claimed(with_oidc, provider):
    bench = with_oidc()
    step = bench.step(ROTATE, name="client")
    step.capture()
    provider.control_("forget", registration_access_token=bench.registered["registration_access_token"])
    with pytest.raises(Refused, match="client management"):
        step.apply()
    assert accepted(bench, bench.client)
    assert bench.store.current(bench.agent, "client") == bench.client


class Lying:
    def __init__(self, inner, **calls):
        self._inner, self._calls = inner, calls

    def __getattr__(self, name):
        return self._calls.get(name) or getattr(self._inner, name)


def test_a_deletion_without_effect_is_not_claimed(with_oidc):
    bench = with_oidc("keep")
    bench.oidc = Lying(bench.oidc, registration_delete=lambda *_args: None)
    proof = bench.step(ROTATE, name="client").run()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert f"old secret of {bench.identifiers['client_id']} used: ACCEPTED" in proof.proof


def test_a_new_secret_that_was_never_set_is_not_claimed(with_oidc):
    bench = with_oidc("rotate")
    made_up = {"client_id": bench.identifiers["client_id"], "client_secret": "made-up-by-a-liar"}
    bench.oidc = Lying(bench.oidc, registration_update=lambda *_args: made_up)
    proof = bench.step(ROTATE, name="client").run()
    assert not proof.verified
    assert "ACCEPTED" in proof.proof
    assert "REFUSED" in proof.proof


def test_with_the_issuer_silent_nothing_is_claimed(with_oidc, provider, silence):
    bench = with_oidc()
    step = bench.step(ROTATE, name="client")
    step.capture()
    with silence(provider.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(provider.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().enforcement is Enforcement.FULL


def test_what_else_the_credential_s_file_holds_stays(with_oidc):
    bench = with_oidc()
    bench.store.put(bench.agent, bench.client_ref, json.dumps(json.loads(bench.client) | {"audience": "x"}))
    assert bench.step(ROTATE, name="client").run().verified
    assert json.loads(bench.store.current(bench.agent, "client"))["audience"] == "x"
