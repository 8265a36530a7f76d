"""vault.rotate-secret-id: the old secret-id logs in, a token of it lives, or the new one does not log in."""

from __future__ import annotations

import json

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_rotate_secret_id import ACTION
from clawback.errors import ClawbackError
from clawback.model import CredentialRef


def _before(scene):
    try:
        scene.bao._call("POST", "sys/auth/approle", {"type": "approle"})
    except ClawbackError:
        pass  # another scene of this server made it
    scene.at = f"auth/approle/role/{scene.agent}"
    scene.bao._call("POST", scene.at, {"token_policies": ["default"], "secret_id_ttl": "24h"})
    scene.role_id = scene.bao._call("GET", f"{scene.at}/role-id")["data"]["role_id"]
    scene.old, accessor = _issue(scene)
    scene.login = _login(scene, scene.old)
    scene.ref = CredentialRef(
        kind="vault-approle", name="approle", identifiers={"role": scene.agent, "accessor": accessor}
    )
    scene.store.put(scene.agent, scene.ref, scene.old)


def _issue(scene):
    data = scene.bao._call("POST", f"{scene.at}/secret-id", {"metadata": json.dumps({"agent": scene.agent})})["data"]
    return data["secret_id"], data["secret_id_accessor"]


def _login(scene, secret_id):
    body = {"role_id": scene.role_id, "secret_id": secret_id}
    return scene.bao._call("POST", "auth/approle/login", body)["auth"]["client_token"]


def _works(scene, secret_id):
    return scene.true_vault.approle.logs_in("approle", scene.role_id, secret_id)[0]


def _known(scene, secret_id):
    return scene.true_vault.approle.facts_of("approle", scene.agent, secret_id)


def _holds(scene, _receipt):
    new = scene.current("approle")
    dead = not _works(scene, scene.old) and not scene.token_works(scene.login)
    return dead and new != scene.old and _known(scene, new) is not None and not getattr(scene, "again", "")


def _log_in_again(scene, _outcome):
    """A token that was won with the old one while it was there, and was not seen."""
    secret_id, accessor = _issue(scene)
    scene.login = _login(scene, secret_id)
    scene.true_vault.approle.destroy("approle", scene.agent, accessor)


def _make_again(scene, _outcome):
    """An administrator may choose a secret-id's value: the old one."""
    scene.bao._call("POST", f"{scene.at}/custom-secret-id", {"secret_id": scene.old})


def _destroy_the_made_again(scene):
    scene.bao._call("POST", f"{scene.at}/secret-id/destroy", {"secret_id": scene.old})


def _destroy_the_new(scene, outcome):
    scene.true_vault.approle.destroy("approle", scene.agent, outcome["accessor"])


def _undone(scene, receipt):
    now = _known(scene, scene.current("approle"))
    short = scene.true_vault.approle.facts("approle", scene.agent, receipt.outcome["accessor"])
    return now is not None and (now["ttl"], now["uses"]) == (86_400, 0) and short is None


def _destroy_the_restored(scene, _outcome):
    (ref,) = (ref for ref in scene.store.refs(scene.agent) if ref.name == "approle")
    scene.true_vault.approle.destroy("approle", scene.agent, ref.identifiers["accessor"])


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "approle"},
    holds=_holds,
    lies=(
        Lie(what="the old one is made again", drifts=True, behind=_make_again, mend=_destroy_the_made_again),
        Lie(what="a token got with the old one lives", behind=_log_in_again),
        Lie(what="the new one is destroyed", behind=_destroy_the_new),
        Lie(
            what="destroying is answered and not done",
            part="vault",
            about=asked("POST", "secret-id-accessor/destroy"),
            answer=nothing,
        ),
        Lie(
            what="revoking its tokens is answered and not done",
            part="vault",
            about=asked("POST", "auth/token/revoke-accessor"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    undone=_undone,
    revert_lies=(
        Lie(what="what was given back is destroyed", behind=_destroy_the_restored),
        Lie(
            what="destroying the short-lived one is answered and not done",
            part="vault",
            about=asked("POST", "secret-id-accessor/destroy"),
            answer=nothing,
        ),
    ),
    revert_reads=("vault",),
)
