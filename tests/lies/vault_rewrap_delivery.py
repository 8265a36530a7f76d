"""vault.rewrap-delivery: the old wrapping token unwraps, or the new one was used by somebody."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_rewrap_delivery import ACTION
from clawback.model import CredentialRef


def _before(scene):
    scene.old, scene.accessor = scene.true_vault.wrapping.wrap({"value": "leaked"}, ttl=3600)
    ref = CredentialRef(kind="vault-wrapped", name="way", identifiers={"accessor": scene.accessor, "of": "vault-token"})
    scene.store.put(scene.agent, ref, scene.old)


def _holds(scene, _receipt):
    new = scene.current("way")
    return not scene.true_vault.wrapping.waits(scene.old)[0] and scene.true_vault.wrapping.waits(new)[0]


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "way"},
    holds=_holds,
    lies=(
        Lie(
            what="somebody unwraps the new one",
            behind=lambda scene, _: scene.true_vault.wrapping.unwrap(scene.current("way")),
        ),
        Lie(
            what="revoking is answered and not done",
            part="vault",
            about=asked("POST", "auth/token/revoke-accessor"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    never_drifts="the issuer makes no wrapping token with the value of one that was revoked",
)
