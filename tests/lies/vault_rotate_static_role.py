"""vault.rotate-static-role: the old password is set again, or nothing was changed, or a session stays open."""

from __future__ import annotations

import json

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_rotate_static_role import ACTION
from clawback.model import CredentialRef


def _before(scene):
    database = scene._database()
    scene.user, scene.mount = scene.agent.replace("-", "_"), f"static-{scene.agent}"
    database.ask(f"CREATE ROLE {scene.user} LOGIN PASSWORD 'before-it-was-kept'")
    scene.bao._call("POST", f"sys/mounts/{scene.mount}", {"type": "database"})
    scene.bao._call("POST", f"{scene.mount}/config/orders", database.config())
    role = {"db_name": "orders", "username": scene.user, "rotation_period": "24h"}
    scene.bao._call("POST", f"{scene.mount}/static-roles/agent", role)
    user, password = scene.true_vault.static_roles.credential(scene.mount, "agent")
    scene.login = json.dumps({"username": user, "password": password})
    where = {"host": str(database.server.folder), "sslmode": "disable"}
    ref = CredentialRef(
        kind="vault-static-role", name="static-db", identifiers={"mount": scene.mount, "role": "agent", **where}
    )
    scene.store.put(scene.agent, ref, scene.login)


def _holds(scene, _receipt):
    new = scene.current("static-db")
    return new != scene.login and not scene.login_works(scene.login) and scene.login_works(new)


def _set_again(scene, _outcome):
    scene._database().ask(f"ALTER ROLE {scene.user} PASSWORD '{json.loads(scene.login)['password']}'")


def _set_another(scene, _outcome):
    scene._database().ask(f"ALTER ROLE {scene.user} PASSWORD 'of somebody else'")


def _as_vault_has_it(scene):
    """Nothing of Vault's sets at the database what Vault has already; whoever changed it there must."""
    _, password = scene.true_vault.static_roles.credential(scene.mount, "agent")
    scene._database().ask(f"ALTER ROLE {scene.user} PASSWORD '{password}'")


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "static-db"},
    holds=_holds,
    lies=(
        Lie(what="the old password is set again", drifts=True, behind=_set_again, mend=_as_vault_has_it),
        Lie(what="another password is set", behind=_set_another, mend=_as_vault_has_it),
        Lie(
            what="rotating is answered and not done",
            part="vault",
            about=asked("POST", "rotate-role"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
)
