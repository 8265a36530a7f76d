"""Through the real journal: what is written down is enough to prove by, reads as it was said, and holds no value."""

import pytest

from clawback.actions.credential_discard_old import ACTION as DISCARD
from clawback.actions.oidc_revoke_token import ACTION as REVOKE
from clawback.actions.oidc_rotate_client import ACTION as ROTATE
from clawback.journal import Journal
from clawback.model import Enforcement, ReceiptState
from clawback.response import Response

pytestmark = pytest.mark.parts


def test_revoked_rotated_discarded_and_no_value_is_written_down(with_oidc, state, make_finding):
    bench = with_oidc()
    journal = Journal(f"sqlite:///{state / 'journal.db'}")
    incident, _ = journal.open_or_join(make_finding(agent=bench.agent), playbook="contain-rogue-agent")
    actions = {action.id: action for action in (REVOKE, ROTATE, DISCARD)}
    world = bench.context().world
    response = Response(
        journal, world, "tester", incident.id, actions=actions, without_evidence="a rehearsal of issuers"
    )
    for action, name in ((REVOKE, "tokens"), (ROTATE, "client")):
        receipt = response.execute(action, action.params(agent=bench.agent, name=name))
        assert (receipt.state, receipt.enforcement) == (ReceiptState.VERIFIED, Enforcement.FULL), receipt
        assert "redacted" not in repr(receipt)
    receipt = response.execute(DISCARD, DISCARD.params(agent=bench.agent))
    assert receipt.state is ReceiptState.VERIFIED, receipt
    assert bench.store.old(bench.agent, "client") is None
    journal.dispose()
    everything = b"".join(path.read_bytes() for path in state.rglob("journal*"))
    assert b"oidc.rotate-client" in everything
    assert not [value for value in bench.store.values if value.encode() in everything]
