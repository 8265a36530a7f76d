"""access.review: what it was drawn from is lost, or was not there to be read when it was drawn."""

from __future__ import annotations

from lies.case import Case
from lies.record import hidden, torn, vanishing

from clawback.actions.access_review import ACTION
from clawback.model import CredentialUse, Disposition, FileActivity, HttpActivity, NetworkActivity, Source


def _before(scene):
    scene.tell(Source.POLICY, HttpActivity, method="GET", host="api.test", port=443, path="/v1", calls=("tools/list",))
    sent = {"host": "drop.test", "port": 443, "activity_id": NetworkActivity.TRAFFIC, "connection": "c1"}
    flow = scene.tell(Source.POLICY, NetworkActivity, bytes_out=57, bytes_in=3, **sent)
    refused = {"disposition": Disposition.BLOCKED}
    scene.tell(Source.SANDBOX, FileActivity, path="/etc/shadow", **refused)
    scene.tell(Source.EXTERNAL, CredentialUse, credential="aws-key", issuer="aws", origin="192.0.2.7", elsewhere=True)
    scene.open(technique="T1041", resource="drop.test:443", events=(flow.uid,))


def _params(scene):
    return {"agent": scene.agent, "instance": scene.instance, "findings": 2}


def _holds(_scene, receipt):
    said = receipt.outcome
    return (
        said["destinations"] == {"drop.test:443": {"sent": 57, "received": 3}}
        and said["files_refused"] == {"/etc/shadow": 1}
        and said["credential_uses"] == {"aws-key at aws from 192.0.2.7 (elsewhere)": 1}
        and said["tools_called"] == {"tools/list": 1}
    )


_STREAMS = (Source.POLICY, Source.SANDBOX, Source.EXTERNAL)

CASE = Case(
    action=ACTION,
    scene="ledger",
    before=_before,
    params=_params,
    holds=_holds,
    lies=(
        *(lie for source in _STREAMS for lie in (*vanishing(source), hidden(ACTION, _params, source))),
        torn(Source.POLICY),
    ),
    changes_nothing="it reads what is recorded and writes the account into its own receipt",
)
