"""credential.revoke: the token that the agent made lives on."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.credential_revoke import ACTION
from clawback.actions.credential_trace import ACTION as TRACE


def _before(scene):
    """A token that names the agent, as one that it made for later would."""
    auth = scene.bao._call(
        "POST", "auth/token/create", {"policies": [scene.agent], "meta": {"agent": scene.agent}, "ttl": "1h"}
    )["auth"]
    scene.made, scene.made_id = auth["client_token"], auth["accessor"]
    scene.must(TRACE, agent=scene.agent, turn=1)


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "kind": "vault-token", "id": scene.made_id},
    holds=lambda scene, _: not scene.token_works(scene.made),
    lies=(
        Lie(
            what="revoking is answered and not done",
            part="vault",
            about=asked("POST", "auth/token/revoke-accessor"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    never_drifts="a token that was revoked is not to be had again",
    never_undone="a token that was revoked is not to be had again from the issuer, by anybody",
)
