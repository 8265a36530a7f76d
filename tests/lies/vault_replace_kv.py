"""vault.replace-kv: the leaked version can be read, or what was supplied cannot."""

from __future__ import annotations

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_replace_kv import ACTION
from clawback.model import CredentialRef


def _before(scene):
    scene.path = f"{scene.agent}/api"  # which its policy lets it read
    scene.leaked = scene.bao._call("POST", f"secret/data/{scene.path}", {"data": {"key": "leaked"}})["data"]["version"]
    ref = CredentialRef(
        kind="vault-kv", name="api", identifiers={"mount": "secret", "path": scene.path, "field": "key"}
    )
    scene.store.put(scene.agent, ref, "leaked")
    scene.store.stage(scene.agent, ref, "supplied")


def _read(scene, version):
    return scene.true_vault.kv.read_as(scene.token.token, "secret", scene.path, version)[0]


def _holds(scene, _receipt):
    return _read(scene, scene.leaked) is None and _read(scene, 0) == {"key": scene.current("api")} == {
        "key": "supplied"
    }


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "api"},
    holds=_holds,
    lies=(
        Lie(
            what="the leaked version is undeleted",
            drifts=True,
            behind=lambda scene, _: scene.true_vault.kv.undelete("secret", scene.path, [scene.leaked]),
        ),
        Lie(
            what="the new version is deleted",
            behind=lambda scene, done: scene.true_vault.kv.delete("secret", scene.path, [done["version"]]),
            mend=lambda scene: scene.true_vault.kv.undelete("secret", scene.path, [scene.leaked + 1]),
        ),
        Lie(
            what="deleting is answered and not done",
            part="vault",
            about=asked("POST", "secret/delete"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    undone=lambda scene, _: _read(scene, scene.leaked) is not None,
    revert_lies=(
        Lie(
            what="the old version is deleted again",
            behind=lambda scene, _: scene.true_vault.kv.delete("secret", scene.path, [scene.leaked]),
        ),
        Lie(
            what="undeleting is answered and not done",
            part="vault",
            about=asked("POST", "secret/undelete"),
            answer=nothing,
        ),
    ),
    revert_reads=("vault",),
)
