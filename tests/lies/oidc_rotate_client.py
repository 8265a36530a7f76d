"""oidc.rotate-client: the old secret lives, or the new one does not."""

from __future__ import annotations

import json

from lies.answers import asked, yes
from lies.case import Case, Lie

from clawback.actions.oidc_rotate_client import ACTION


def _accepted(scene, client):
    raw = json.loads(client)
    answer = scene.provider.ask(
        "POST",
        "/token",
        data={"grant_type": "client_credentials", "scope": "read"},
        auth=(raw["client_id"], raw["client_secret"]),
    )
    return answer.status_code == 200


def _rotate_again(scene, _outcome):
    """Somebody else who may manage the client has it issued another secret."""
    headers = {"authorization": f"Bearer {scene.managing}"}
    path = scene.uri.removeprefix(scene.provider.issuer)
    registered = scene.provider.ask("GET", path, headers=headers).json()
    told = ("client_id_issued_at", "client_secret", "client_secret_expires_at")
    kept = {key: value for key, value in registered.items() if key not in told and not key.startswith("registration")}
    assert scene.provider.ask("PUT", path, headers=headers, json=kept).status_code == 200


def _made_up(request):
    return yes({"client_id": request.path.rpartition("/")[2], "client_secret": "made-up-by-a-liar"})


CASE = Case(
    action=ACTION,
    scene="identity",
    params=lambda scene: {"agent": scene.agent, "name": "client"},
    holds=lambda scene, _: (
        not _accepted(scene, scene.client) and _accepted(scene, scene.store.current(scene.agent, "client"))
    ),
    lies=(
        Lie(
            what="a backup of the issuer's clients is put back",
            drifts=True,
            behind=lambda scene, _: scene.restore("Client"),
        ),
        Lie(what="the new secret is replaced too", behind=_rotate_again),
        Lie(what="a new secret is answered and not set", part="oidc", about=asked("PUT", "/reg/"), answer=_made_up),
    ),
    reads=("oidc",),
)
