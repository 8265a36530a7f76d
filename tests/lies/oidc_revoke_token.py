"""oidc.revoke-token: the tokens live on, whatever the issuer says of them."""

from __future__ import annotations

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.liar import Answer

from clawback.actions.oidc_revoke_token import ACTION


def _alive(scene):
    """By the issuer's own word, past whoever lies."""
    return [
        kind
        for kind, token in scene.tokens.items()
        if scene.provider.ask(
            "POST", "/token/introspection", data={"token": token}, auth=("clawback", scene.provider.manager)
        ).json()["active"]
    ]


CASE = Case(
    action=ACTION,
    scene="identity",
    params=lambda scene: {"agent": scene.agent, "name": "tokens"},
    holds=lambda scene, _: not _alive(scene),
    lies=(
        Lie(
            # Were the refresh token back too, verifying would use it, and by that end it.
            what="a backup of the issuer's access tokens is put back",
            drifts=True,
            behind=lambda scene, _: scene.restore("AccessToken", "Grant"),
        ),
        Lie(
            what="revoking is answered and not done",
            part="oidc",
            about=asked("POST", "/token/revocation"),
            answer=Answer(b""),
        ),
        Lie(
            what="nothing is revoked and all of it is called inactive",
            part="oidc",
            about=lambda request: request.says("/token/revocation") or request.says("/token/introspection"),
            answer=yes({"active": False}),
        ),
    ),
    reads=("oidc",),
)
