"""credential.trace: an issuer stops answering while it walks, or tells of nothing."""

from __future__ import annotations

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer

from clawback.actions.credential_trace import ACTION

CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "turn": 1},
    holds=lambda scene, receipt: (
        {
            f"vault-token/{scene.token.ref.identifiers['accessor']}",
            f"aws-access-key/{scene.old_key_id()}",
        }
        <= {f"{node['kind']}/{node['id']}" for node in receipt.outcome["nodes"]}
    ),
    lies=(
        Lie(
            what="IAM says nothing of keys",
            part="aws",
            about=lambda request: "Action=ListAccessKeys" in request.body,
            answer=Answer(b"", status=200),
        ),
        Lie(
            what="Vault refuses to say",
            part="vault",
            about=asked("POST", "lookup-accessor"),
            answer=Answer(b'{"errors":["internal error"]}', status=500),
        ),
    ),
    reads=("vault", "aws"),
    changes_nothing="it reads the issuers' records and writes what it found into its own receipt",
)
