"""Through the real journal: everything that is written down is enough to undo, and holds no value."""

import json

import pytest

from clawback.actions.aws_close_trust import ACTION as CLOSE_TRUST
from clawback.actions.aws_delete_key import ACTION as DELETE_KEY
from clawback.actions.aws_issue_session import ACTION as ISSUE_SESSION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_restore_trust import ACTION as RESTORE_TRUST
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.credential_discard_old import ACTION as DISCARD
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.journal import Journal
from clawback.model import Enforcement, ReceiptState
from clawback.response import Response

pytestmark = pytest.mark.parts

STEPS = (
    (CLOSE_TRUST, {"name": "aws-session"}),
    (ROTATE_TOKEN, {"name": "vault-token"}),
    (ROTATE_KEY, {"name": "aws-key"}),
    (REFUSE_SESSIONS, {"name": "aws-session"}),
    (RESTORE_TRUST, {"name": "aws-session"}),
    (ISSUE_SESSION, {"name": "aws-session"}),
    (DELETE_KEY, {"name": "aws-key"}),
    (DISCARD, {}),
)


@pytest.fixture
def journalled(with_aws, bao, state, make_finding):
    bench = with_aws()
    token = bao.provision(bench.agent)
    bench.store.put(bench.agent, token.ref, token.token)
    journal = Journal(f"sqlite:///{state / 'journal.db'}")
    incident, _ = journal.open_or_join(make_finding(agent=bench.agent), playbook="contain-rogue-agent")
    actions = {action.id: action for action, _ in STEPS}
    response = Response(
        journal,
        bench.context().world,
        "tester",
        incident.id,
        actions=actions,
        without_evidence="a rehearsal of issuers",
    )
    yield bench, response
    journal.dispose()
    everything = b"".join(path.read_bytes() for path in state.rglob("journal*"))
    assert b"vault.rotate-token" in everything or b"aws.close-trust" in everything
    assert not [value for value in bench.store.values if value.encode() in everything]


def test_from_closing_to_discarding_every_step_is_fully_verified_and_no_value_is_written_down(journalled):
    bench, response = journalled
    for action, params in STEPS:
        receipt = response.execute(action, action.params(agent=bench.agent, **params))
        assert (receipt.state, receipt.enforcement) == (ReceiptState.VERIFIED, Enforcement.FULL), receipt
    assert len(bench.store.values) >= 7  # three credentials, before and after; a session has two values
    again = [response.execute(action, action.params(agent=bench.agent, **params)) for action, params in STEPS]
    assert all(receipt.attempts == 1 for receipt in again), "adopted, not repeated"


def test_a_trust_policy_with_what_looks_like_a_secret_in_it_comes_back_to_the_letter(journalled, cloud):
    bench, response = journalled
    before = cloud.trust(bench.grants.role)
    before["Statement"][0]["Condition"] = {
        "StringLike": {"token.actions.githubusercontent.com:sub": "repo:owner/name:ref:refs/heads/main"}
    }
    cloud.trust_set(bench.grants.role, before)
    receipt = response.execute(CLOSE_TRUST, CLOSE_TRUST.params(agent=bench.agent, name="aws-session"))
    assert receipt.state is ReceiptState.VERIFIED
    assert cloud.trust(bench.grants.role) != before
    undone = response.revert(receipt)
    assert undone.state is ReceiptState.REVERTED, undone
    assert json.dumps(cloud.trust(bench.grants.role), sort_keys=True) == json.dumps(before, sort_keys=True)


def test_with_the_issuers_silent_steps_wait_and_are_completed_later(journalled, bao, ministack, silence):
    bench, response = journalled
    steps = [
        (ROTATE_TOKEN, ROTATE_TOKEN.params(agent=bench.agent, name="vault-token")),
        (ROTATE_KEY, ROTATE_KEY.params(agent=bench.agent, name="aws-key")),
    ]
    with silence(bao.service), silence(ministack.service):
        for action, params in steps:
            receipt = response.execute(action, params)
            assert receipt.state is not ReceiptState.VERIFIED
            assert receipt.state is not ReceiptState.FAILED, "it is pending: the issuer may have done it"
    for action, params in steps:
        receipt = response.execute(action, params)
        assert (receipt.state, receipt.enforcement) == (ReceiptState.VERIFIED, Enforcement.FULL), receipt
