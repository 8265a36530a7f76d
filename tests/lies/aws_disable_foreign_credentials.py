"""aws.disable-foreign-credentials: a foreign key is Active again, another appears, or none was ever set Inactive."""

from __future__ import annotations

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_disable_foreign_credentials import ACTION


def _begin(scene):
    scene.iam.create_access_key(UserName=scene.grants.user)


def _foreign(scene):
    return {key: status for key, status in scene.access_keys().items() if key != scene.old_key_id()}


def _switch(status):
    def now(scene, _outcome):
        for key in _foreign(scene):
            scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=key, Status=status)

    return now


def _another(scene, _outcome):
    for key in _foreign(scene):
        scene.iam.delete_access_key(UserName=scene.grants.user, AccessKeyId=key)
    scene.iam.create_access_key(UserName=scene.grants.user)


def _remove(scene):
    for key in _foreign(scene):
        scene.iam.delete_access_key(UserName=scene.grants.user, AccessKeyId=key)


_SWALLOWED = {"part": "aws", "about": asked_aws("UpdateAccessKey"), "answer": aws_done("UpdateAccessKey")}

CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_begin,
    params=lambda scene: {"agent": scene.agent},
    holds=lambda scene, _: "Active" not in _foreign(scene).values(),
    lies=(
        Lie(what="it is set Active again", drifts=True, behind=_switch("Active")),
        Lie(what="another one takes its place", behind=_another, mend=_remove),
        Lie(what="switching off is answered and not done", **_SWALLOWED),
    ),
    reads=("aws",),
    undone=lambda scene, _: set(_foreign(scene).values()) == {"Active"},
    revert_lies=(
        Lie(what="it is set Inactive again", behind=_switch("Inactive")),
        Lie(what="switching on is answered and not done", **_SWALLOWED),
    ),
    revert_reads=("aws",),
)
