"""vault.rotate-token: the old token lives, or the new one does not."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_rotate_token import ACTION


def _kill_the_new(scene, outcome):
    scene.true_vault.token_revoke(outcome["accessor"])


def _give_back(scene, _outcome):
    scene.store.put(scene.agent, scene.token.ref, scene.token.token)


def _restored(scene):
    facts = scene.true_vault.token_lookup(scene.store.refs(scene.agent)[-1].identifiers["accessor"])
    return facts is not None and facts["meta"].get("clawback_purpose") == "restored"


def _undone(scene, receipt):
    short = scene.true_vault.token_lookup(receipt.outcome["accessor"])
    return _restored(scene) and scene.token_works(scene.current("vault-token")) and short is None


def _kill_the_restored(scene, _outcome):
    scene.true_vault.token_revoke(scene.store.refs(scene.agent)[-1].identifiers["accessor"])


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
    never_drifts="the issuer makes no token with the value of one that was revoked",
    undone=_undone,
    revert_lies=(
        Lie(what="what was given back is revoked", behind=_kill_the_restored),
        Lie(
            what="revoking the short-lived one is answered and not done",
            part="vault",
            about=asked("POST", "auth/token/revoke-accessor"),
            answer=nothing,
        ),
    ),
    revert_reads=("vault",),
)
