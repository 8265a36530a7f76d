"""vault.revoke-leases: leases are there still, or a login lives on without its lease."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_revoke_leases import ACTION


def _lease_again(scene, _outcome):
    """The agent's token, which lives, asks for another."""
    scene.true_vault.lease_issue(scene.token.token, scene.path)


def _holds(scene, _receipt):
    return not scene.true_vault.leases(scene.path) and not scene.login_works(scene.login)


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=lambda scene: scene.lease(),
    params=lambda scene: {"agent": scene.agent, "name": "orders-db"},
    holds=_holds,
    lies=(
        Lie(what="another is leased", behind=_lease_again),
        Lie(
            what="revoking is answered and not done",
            part="vault",
            about=asked("PUT", "sys/leases/revoke-prefix"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    never_drifts="a lease that was revoked is gone, and a new one has another name",
)
