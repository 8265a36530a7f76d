"""Tokens of a real identity provider: revoked, and seen refused by whoever would have taken them."""

import json
import time

import pytest

from clawback.actions.oidc_revoke_token import ACTION as REVOKE
from clawback.errors import InvalidInput, NotEnforced, Unreachable
from clawback.log import redact_text
from clawback.model import Enforcement

pytestmark = pytest.mark.parts


def alive(bench, kind):
    said = bench.oidc.introspect(bench.identifiers["issuer"], bench.tokens[kind], hint=kind)
    return said["active"]


def test_refresh_and_access_token_are_refused_after_it(with_oidc):
    bench = with_oidc()
    step = bench.step(REVOKE, name="tokens")
    assert [line for line in step.plan().changes if "active" in line] == list(step.plan().changes)
    assert alive(bench, "access_token"), "planning touches nothing"
    assert bench.oidc.use(bench.identifiers["issuer"], bench.tokens["access_token"])[0]
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    for seen in (
        "introspection calls the refresh token inactive",
        "refresh token used: refused (refresh grant: invalid_grant)",
        "introspection calls the access token inactive",
        "access token used: refused (userinfo: HTTP 401 invalid_token)",
    ):
        assert seen in proof.proof
    assert redact_text(proof.proof) == proof.proof, "the journal leaves the proof as it is"
    assert not alive(bench, "access_token")
    assert not alive(bench, "refresh_token")
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL


def test_it_ends_only_what_the_agent_held(with_oidc, provider):
    bench = with_oidc()
    other = provider.control_("grant", client_id=bench.identifiers["client_id"], sub="ann", scope="openid")
    assert bench.step(REVOKE, name="tokens").run().verified
    assert bench.oidc.use(provider.issuer, other["access_token"])[0]


def test_cut_off_anywhere_it_ends_in_the_same_place(with_oidc, crash_everywhere):
    steps = []

    def make():
        bench = with_oidc()
        step = bench.step(REVOKE, name="tokens")
        step.capture()
        steps.append(step)
        return step.apply

    assert crash_everywhere(make, lambda _attempt: steps[-1].verify().verified or pytest.fail("not verified")) > 4


def test_without_its_client_s_secret_it_is_revoked_by_ours_and_the_refresh_is_not_tried(with_oidc):
    bench = with_oidc()
    bench.store.put(bench.agent, bench.client_ref.__class__(kind="opaque", name="client"), bench.client)
    proof = bench.step(REVOKE, name="tokens").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "the refresh token was not used" in proof.proof
    assert not alive(bench, "refresh_token")


def test_a_jwt_beside_a_refresh_token_is_said_to_be_good_until_it_expires(with_oidc):
    bench = with_oidc(jwt=True)
    step = bench.step(REVOKE, name="tokens")
    assert any("is a JWT" in line for line in step.plan().checks)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "access token is a JWT: whoever checks it alone accepts it until 2" in proof.proof
    assert "refresh token used: refused" in proof.proof
    assert "the issuer does not revoke tokens of this type" in proof.proof


def test_a_jwt_alone_is_not_claimed_until_it_has_expired(with_oidc, with_token, provider, make_jwt):
    live = with_oidc()
    token = json.loads(provider.credentials_token(live.client, resource="urn:jwt", scope="read"))["access_token"]
    bench = with_token(token)
    step = bench.step(REVOKE, name="tokens")
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "whoever checks it alone accepts it until" in proof.proof
    expired = with_token(make_jwt({"exp": int(time.time()) - 60, "iss": provider.issuer}))
    proof = expired.step(REVOKE, name="tokens").run()
    assert proof.verified
    assert "expired" in proof.proof


def test_an_access_token_alone_as_plain_text_issued_to_another_client_is_revoked_by_ours(
    with_oidc, with_token, provider
):
    giver = with_oidc()
    token = json.loads(provider.credentials_token(giver.client, scope="read"))["access_token"]
    bench = with_token(token)
    proof = bench.step(REVOKE, name="tokens").run()
    assert proof.verified, proof.proof
    assert "introspection calls the access token inactive" in proof.proof


class Lying:
    """The real issuer, but for the calls named."""

    def __init__(self, inner, **calls):
        self._inner, self._calls = inner, calls

    def __getattr__(self, name):
        return self._calls.get(name) or getattr(self._inner, name)


def test_success_without_effect_is_not_claimed_and_what_the_proof_wins_is_revoked(with_oidc):
    bench, won = with_oidc(), []
    real = bench.oidc

    def refresh(*args, **kwargs):
        answer = real.refresh(*args, **kwargs)
        won.append(answer[2])
        return answer

    # Only the tokens that the agent holds survive: what is won in the proof is revoked for good.
    def revoke(issuer, token, **kwargs):
        return "" if token in bench.tokens.values() else real.revoke(issuer, token, **kwargs)

    bench.oidc = Lying(real, revoke=revoke, refresh=refresh)
    proof = bench.step(REVOKE, name="tokens").run()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof
    for token in won[0].values():
        bench.store.values.add(token)
        assert not real.introspect(bench.identifiers["issuer"], token, hint="")["active"]


def test_an_issuer_that_calls_it_inactive_while_a_resource_takes_it_is_not_believed(with_oidc):
    bench = with_oidc()
    bench.oidc = Lying(bench.oidc, revoke=lambda *_a, **_k: "", introspect=lambda *_a, **_k: {"active": False})
    proof = bench.step(REVOKE, name="tokens").run()
    assert not proof.verified
    assert "access token used: ACCEPTED" in proof.proof


def test_with_nothing_to_be_seen_nothing_is_claimed(with_token, with_oidc, provider):
    giver = with_oidc()
    token = json.loads(provider.credentials_token(giver.client, scope="read"))["access_token"]
    bench = with_token(token)
    bench.oidc = Lying(bench.oidc, introspect=lambda *_a, **_k: None, use=lambda *_a, **_k: None)
    proof = bench.step(REVOKE, name="tokens").run()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "nothing was seen" in proof.proof


def test_a_resource_of_the_agent_s_own_is_tried(with_oidc, holding, provider):
    bench = with_oidc()
    holding(bench, resource=f"{provider.issuer}/me?of=resource")
    proof = bench.step(REVOKE, name="tokens").run()
    assert "access token used: refused (the resource: HTTP 401" in proof.proof


def test_with_the_issuer_silent_nothing_is_claimed(with_oidc, provider, silence):
    bench = with_oidc()
    step = bench.step(REVOKE, name="tokens")
    step.capture()
    with silence(provider.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(provider.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().verified


def test_what_was_replaced_and_not_kept_cannot_be_revoked_and_is_not_said_to_be(with_oidc):
    bench = with_oidc()
    step = bench.step(REVOKE, name="tokens")
    step.capture()
    bench.store.put(bench.agent, bench.token_ref, "another")
    with pytest.raises(NotEnforced, match="replaced since"):
        step.apply()


@pytest.mark.parametrize("value", ['{"id_token": "x"}', '{"access_token": 1}', "{}"])
def test_a_value_without_a_token_is_refused(with_token, value):
    with pytest.raises(InvalidInput, match="no token"):
        with_token(value).step(REVOKE, name="tokens").plan()
