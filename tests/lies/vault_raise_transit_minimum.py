"""vault.raise-transit-minimum: what was encrypted before is taken still, or is not taken again after undoing."""

from __future__ import annotations

import base64

from lies.answers import asked, nothing
from lies.case import Case, Lie

from clawback.actions.vault_raise_transit_minimum import ACTION
from clawback.errors import ClawbackError
from clawback.model import CredentialRef

TEXT = base64.b64encode(b"stolen").decode()


def _before(scene):
    try:
        scene.bao._call("POST", "sys/mounts/transit", {"type": "transit"})
    except ClawbackError:
        pass  # another scene of this server made it
    scene.bao._call("POST", f"transit/keys/{scene.agent}", {})
    scene.stolen = scene.bao._call("POST", f"transit/encrypt/{scene.agent}", {"plaintext": TEXT})["data"]["ciphertext"]
    ref = CredentialRef(kind="vault-transit", name="key", identifiers={"key": scene.agent})
    scene.store.put(scene.agent, ref, f"transit/keys/{scene.agent}")


def _readable(scene):
    try:
        scene.bao._call("POST", f"transit/decrypt/{scene.agent}", {"ciphertext": scene.stolen})
    except ClawbackError:
        return False
    return True


def _lower(scene, _outcome):
    scene.true_vault.transit.set_minimum("transit", scene.agent, decrypts_from=1, encrypts_from=0)


def _raise(scene, _outcome):
    scene.true_vault.transit.set_minimum("transit", scene.agent, decrypts_from=2, encrypts_from=2)


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "name": "key"},
    holds=lambda scene, _: not _readable(scene),
    lies=(
        Lie(what="the minimum is lowered again", drifts=True, behind=_lower),
        Lie(
            what="raising the minimum is answered and not done",
            part="vault",
            about=asked("POST", "/config"),
            answer=nothing,
        ),
        Lie(
            what="rotating is answered and not done",
            part="vault",
            about=asked("POST", "/rotate"),
            answer=nothing,
        ),
    ),
    reads=("vault",),
    undone=lambda scene, _: _readable(scene),
    revert_lies=(
        Lie(what="the minimum is raised again", behind=_raise),
        Lie(
            what="lowering it is answered and not done",
            part="vault",
            about=asked("POST", "/config"),
            answer=nothing,
        ),
    ),
    revert_reads=("vault",),
)
