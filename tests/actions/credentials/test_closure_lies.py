"""What the closing actions claim when their effect was sabotaged: nothing that is not so."""

import dataclasses

import pytest

from clawback.actions.credential_confirm_closed import ACTION as CONFIRM
from clawback.actions.credential_refuse import ACTION as REFUSE
from clawback.actions.credential_revoke import ACTION as REVOKE
from clawback.actions.credential_trace import ACTION as TRACE
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.errors import Unreachable
from clawback.model import CredentialGraph, ReceiptState

pytestmark = pytest.mark.parts

DONE = (ReceiptState.VERIFIED, ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT)


@pytest.fixture
def traced(with_aws, bao, vault, open_case):
    """An agent with a token and a key, an incident that traced them; `step(ACTION, kind=…)` makes a step of it."""
    bench = with_aws()
    granted = bao.provision(bench.agent)
    bench.store.put(bench.agent, granted.ref, granted.token)
    bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    case = open_case(bench)
    case.response = case.responder().response
    case.trace = case.response.execute(TRACE, TRACE.params(agent=bench.agent, turn=1))
    assert case.trace.state is ReceiptState.VERIFIED, case.trace
    case.nodes = {node.kind: node for node in CredentialGraph.from_record(case.trace.outcome).nodes}

    def step(action, kind, turn=1):
        node = case.nodes[kind]
        return case.response.execute(action, action.params(agent=bench.agent, kind=kind, id=node.id, turn=turn))

    case.step = step
    return case


def away(*_args, **_kwargs):
    raise Unreachable("it does not answer")


KINDS = [
    (REVOKE, "vault-token", "vault", "token_revoke"),
    (REFUSE, "aws-access-key", "cloud", "access_key_deactivate"),
    (REFUSE, "aws-user-sessions", "cloud", "user_refuse"),
    (REFUSE, "aws-role-sessions", "cloud", "sessions_refuse"),
]


@pytest.mark.parametrize(("action", "kind", "part", "call"), KINDS)
def test_a_call_that_is_answered_and_has_no_effect_is_not_taken_for_one(traced, monkeypatch, action, kind, part, call):
    monkeypatch.setattr(type(getattr(traced.bench, part)), call, lambda *_args, **_kwargs: None)
    receipt = traced.step(action, kind)
    assert receipt.state is ReceiptState.UNVERIFIED, receipt
    assert "NOT CLOSED" in receipt.proof
    monkeypatch.undo()
    assert traced.step(action, kind).state is ReceiptState.VERIFIED


@pytest.mark.parametrize(("action", "kind", "part", "call"), KINDS)
def test_an_issuer_that_falls_silent_leaves_it_pending(traced, monkeypatch, action, kind, part, call):
    monkeypatch.setattr(type(getattr(traced.bench, part)), call, away)
    receipt = traced.step(action, kind)
    assert receipt.state is ReceiptState.INTENDED, receipt
    monkeypatch.undo()
    assert traced.step(action, kind).state is ReceiptState.VERIFIED


def test_a_check_that_cannot_be_made_is_none(traced, monkeypatch):
    records = type(traced.response.world.cloud_records)
    monkeypatch.setattr(records, "keys", away)
    receipt = traced.step(REFUSE, "aws-access-key")
    assert receipt.state not in DONE, receipt
    monkeypatch.undo()
    assert traced.step(REFUSE, "aws-access-key").state is ReceiptState.VERIFIED


def test_an_effect_that_was_undone_behind_its_back_is_not_confirmed(traced, cloud):
    bench = traced.bench
    for action, kind, *_ in KINDS:
        assert traced.step(action, kind).state is ReceiptState.VERIFIED
    confirm = CONFIRM.params(agent=bench.agent)
    key = traced.nodes["aws-access-key"].id
    cloud.access_key_activate(bench.agent, key)
    receipt = traced.response.execute(CONFIRM, confirm)
    assert receipt.state is ReceiptState.UNVERIFIED
    assert f"OPEN: aws-access-key/{key} alive" in receipt.proof
    cloud.access_key_deactivate(bench.agent, key)
    assert traced.response.execute(CONFIRM, confirm).state is ReceiptState.VERIFIED


def test_a_record_that_may_be_late_confirms_nothing_before_it_covers_the_last_closing(traced, cloud):
    bench = traced.bench
    for action, kind, *_ in KINDS:
        assert traced.step(action, kind).state is ReceiptState.VERIFIED
    response = traced.responder().response
    response.world = dataclasses.replace(response.world, cloud_records_or_none=AwsRecordsConnector(cloud, lag=900))
    receipt = response.execute(CONFIRM, CONFIRM.params(agent=bench.agent))
    assert receipt.state is ReceiptState.UNVERIFIED
    assert "not complete up to the last closing" in receipt.proof
    assert traced.response.execute(CONFIRM, CONFIRM.params(agent=bench.agent)).state is ReceiptState.VERIFIED


def test_an_undone_refusal_that_was_not_undone_is_not_claimed(traced, monkeypatch, cloud):
    receipt = traced.step(REFUSE, "aws-access-key")
    monkeypatch.setattr(type(cloud), "access_key_activate", lambda *_args: None)
    assert traced.response.revert(receipt).state is ReceiptState.REVERT_FAILED
    monkeypatch.undo()
    assert traced.response.revert(receipt).state is ReceiptState.REVERTED
    assert cloud.works(traced.bench.grants.key)[0]


@pytest.mark.parametrize("kind", ["aws-user-sessions", "aws-role-sessions"])
def test_a_refusal_of_sessions_is_undone_and_seen_to_be(traced, cloud, kind):
    assert cloud.permitted(traced.bench.grants.session)[0]
    receipt = traced.step(REFUSE, kind)
    assert traced.response.revert(receipt).state is ReceiptState.REVERTED
    assert cloud.permitted(traced.bench.grants.session)[0]


def test_a_trace_with_an_issuer_silent_is_unverified_and_names_what_it_could_not_ask(traced, bao, silence):
    with silence(bao.service):
        receipt = traced.response.execute(TRACE, TRACE.params(agent=traced.bench.agent, turn=2))
    assert receipt.state is ReceiptState.UNVERIFIED
    assert f"no answer about vault-token/{traced.nodes['vault-token'].id}" in receipt.proof
    again = traced.response.execute(TRACE, TRACE.params(agent=traced.bench.agent, turn=2))
    assert again.state is ReceiptState.VERIFIED


def test_nothing_is_confirmed_that_was_never_traced(with_aws, open_case):
    case = open_case(with_aws())
    receipt = case.responder().response.execute(CONFIRM, CONFIRM.params(agent=case.bench.agent))
    assert receipt.state is ReceiptState.FAILED
    assert "run credential.trace" in receipt.error


def test_what_was_not_traced_is_not_closed(traced):
    params = REVOKE.params(agent=traced.bench.agent, kind="vault-token", id="somebody-s", turn=1)
    assert traced.response.execute(REVOKE, params).state is ReceiptState.FAILED
    wrong = REFUSE.params(agent=traced.bench.agent, kind="vault-token", id=traced.nodes["vault-token"].id, turn=1)
    assert "closed otherwise" in traced.response.execute(REFUSE, wrong).error


def test_a_credential_of_no_known_issuer_keeps_it_open_until_its_owner_set_another(with_vault, vault, bao, open_case):
    from clawback.model import CredentialRef

    bench = with_vault()
    ref = CredentialRef(kind="opaque", name="partner", identifiers={"portal": "partner.test"})
    bench.store.put(bench.agent, ref, "the-old-value")
    bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    case = open_case(bench)
    confirmed = case.close()
    assert confirmed.state is ReceiptState.UNVERIFIED
    assert f"OPEN: opaque/{bench.agent}/partner unknown" in confirmed.proof
    assert f"clawback secret put {bench.agent} partner" in confirmed.proof
    bench.store.put(bench.agent, ref, "the-new-value")
    assert case.close().state is ReceiptState.VERIFIED
