"""vault.issue-lease: the lease is gone by the time it is looked at, or never was."""

from __future__ import annotations

from lies.answers import asked, yes
from lies.case import Case, Lie

from clawback.actions.vault_issue_lease import ACTION


def _revoke(scene, _outcome):
    scene.true_vault.leases_revoke(scene.path)


def _give_back(scene, _outcome):
    ref = next(ref for ref in scene.store.refs(scene.agent) if ref.name == "orders-db")
    lease = next(iter(scene.leased))
    scene.store.put(
        scene.agent,
        type(ref)(kind=ref.kind, name=ref.name, identifiers={**ref.identifiers, "lease": lease}),
        scene.login,
    )


def _before(scene):
    scene.lease()
    scene.leased = set(scene.true_vault.leases(scene.path))


def _made_up(scene_path="made-up"):
    return yes(
        {
            "lease_id": f"{scene_path}/creds/agent/made-up",
            "lease_duration": 3600,
            "renewable": True,
            "data": {"username": "nobody", "password": "made-up"},
        }
    )


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "orders-db"},
    holds=lambda scene, _: scene.current("orders-db") != scene.login and scene.login_works(scene.current("orders-db")),
    lies=(
        Lie(what="the new lease is revoked", behind=_revoke),
        Lie(what="the old login is given back", behind=_give_back),
        Lie(
            what="a lease is made up",
            part="vault",
            about=asked("GET", "/creds/agent"),
            answer=_made_up(),
        ),
    ),
    reads=("vault",),
)
