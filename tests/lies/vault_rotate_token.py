"""vault.rotate-token: the old token lives, or the new one does not."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_rotate_token import ACTION


def _kill_the_new(scene, outcome):
    scene.true_vault.token_revoke(outcome["accessor"])


def _give_back(scene, _outcome):
    scene.store.put(scene.agent, scene.token.ref, scene.token.token)


def _holds(scene, _receipt):
    new = scene.current("vault-token")
    return not scene.token_works(scene.token.token) and new != scene.token.token and scene.token_works(new)


CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "vault-token"},
    holds=_holds,
    lies=(
        Lie(what="the new token is revoked", behind=_kill_the_new),
        Lie(what="the old token is given back", behind=_give_back),
        Lie(
            what="revoking is answered and not done",
            part="vault",
            about=asked("POST", "auth/token/revoke-accessor"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
)
