"""credential.discard-old: the value is in the store again, or was never taken out."""

from __future__ import annotations

import shutil

from lies.case import Case, Lie

from clawback.actions.aws_rotate_key import ACTION as ROTATE
from clawback.actions.credential_discard_old import ACTION


def _before(scene):
    scene.must(ROTATE, agent=scene.agent, name="aws-key")
    home = scene.folder / "secrets" / scene.agent / "aws-key"
    shutil.copytree(home, scene.folder / "kept", symlinks=True)


def _put_back(scene, _outcome):
    """As a restored backup of the folder would."""
    home = scene.folder / "secrets" / scene.agent / "aws-key"
    shutil.rmtree(home)
    shutil.copytree(scene.folder / "kept", home, symlinks=True)


def _holds(scene, _receipt):
    secret = scene.grants.key.encode()
    files = (scene.folder / "secrets" / scene.agent).rglob("*")
    return not any(secret in path.read_bytes() for path in files if path.is_file())


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent},
    holds=_holds,
    lies=(Lie(what="a backup of the store is put back", behind=_put_back),),
    no_api="the store is a folder on this disk",
)
