"""aws.rotate-key: the old key is enabled again, or was never disabled; the new one is none."""

from __future__ import annotations

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_rotate_key import ACTION


def _enable(scene, _outcome):
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Active")


def _disable(scene, _outcome):
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Inactive")


def _give_it_back(scene, _outcome):
    """Whoever holds the store puts the old key in its place."""
    scene.store.put(scene.agent, scene.grants.key_ref, scene.grants.key)


def _holds(scene, _receipt):
    now = scene.current("aws-key")
    return not scene.key_works(scene.grants.key) and now != scene.grants.key and scene.key_works(now)


def _undone(scene, _receipt):
    alone = set(scene.access_keys()) == {scene.old_key_id()}
    return scene.key_works(scene.grants.key) and scene.current("aws-key") == scene.grants.key and alone


CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "aws-key"},
    holds=_holds,
    lies=(
        Lie(what="the old key is enabled again", drifts=True, behind=_enable),
        Lie(what="the old key is given back", behind=_give_it_back),
        Lie(
            what="disabling it is answered and not done",
            part="aws",
            about=asked_aws("UpdateAccessKey"),
            answer=aws_done("UpdateAccessKey"),
        ),
    ),
    reads=("aws",),
    undone=_undone,
    revert_lies=(
        Lie(what="the old key is disabled again", behind=_disable),
        Lie(
            what="enabling it is answered and not done",
            part="aws",
            about=asked_aws("UpdateAccessKey", "Status=Active"),
            answer=aws_done("UpdateAccessKey"),
        ),
        Lie(
            what="deleting the new key is answered and not done",
            part="aws",
            about=asked_aws("DeleteAccessKey"),
            answer=aws_done("DeleteAccessKey"),
        ),
    ),
    revert_reads=("aws",),
)
