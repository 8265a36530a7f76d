"""What the closure's tests share: an incident in a real journal over a bench, and what a playbook calls."""

import time

from clawback.model import CredentialGraph, Phase, Receipt, ReceiptState
from clawback.playbooks._credentials import close_credentials
from clawback.response import Responder, Response


class Case:
    """An agent with credentials, an incident in a real journal, and what a playbook calls."""

    def __init__(self, bench, journal, make_finding):
        self.bench, self.journal = bench, journal
        found = make_finding(agent=bench.agent, time_ns=time.time_ns())
        self.id = journal.open_or_join(found, playbook="contain-rogue-agent")[0].id

    def responder(self):
        world = self.bench.context().world
        return Responder(Response(self.journal, world, "tester", self.id, without_evidence="a rehearsal of issuers"))

    def scope(self):
        refs = self.bench.store.refs(self.bench.agent)
        listed = [{"kind": x.kind, "name": x.name, "identifiers": dict(x.identifiers)} for x in self.refs(refs)]
        return Receipt(
            id=0,
            incident=self.id,
            key="incident.scope:",
            action="incident.scope",
            phase=Phase.IDENTIFY,
            state=ReceiptState.VERIFIED,
            params={"agent": self.bench.agent},
            outcome={"credentials": listed},
        )

    def refs(self, refs):
        self.first = getattr(self, "first", None) or refs
        return self.first

    def close(self, responder=None):
        """Run what a playbook runs; returns the confirming receipt."""
        incident = self.journal.incident(self.id)
        receipts = close_credentials(responder or self.responder(), incident, self.scope())
        return receipts[-1]

    def receipts(self, action=""):
        return [x for x in self.journal.incident(self.id).receipts if x.action.startswith(action)]

    def graph(self):
        return {
            node.key: node
            for node in CredentialGraph.from_record(self.receipts("credential.confirm")[-1].outcome).nodes
        }


def assert_closed(case, confirmed):
    assert confirmed.state is ReceiptState.VERIFIED, (confirmed.error, confirmed.proof)
    short = [x for x in case.receipts() if x.state is not ReceiptState.VERIFIED]
    assert [(x.action, x.params, x.error or x.proof) for x in short] == []
