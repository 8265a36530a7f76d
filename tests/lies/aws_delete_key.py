"""aws.delete-key: the key is there still, Inactive or not."""

from __future__ import annotations

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_delete_key import ACTION
from clawback.actions.aws_rotate_key import ACTION as ROTATE


def _who(scene):
    return {"agent": scene.agent, "name": "aws-key"}


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=lambda scene: scene.must(ROTATE, **_who(scene)),
    params=_who,
    holds=lambda scene, _: scene.old_key_id() not in scene.access_keys() and not scene.key_works(scene.grants.key),
    lies=(
        Lie(
            what="deleting is answered and not done",
            part="aws",
            about=asked_aws("DeleteAccessKey"),
            answer=aws_done("DeleteAccessKey"),
        ),
    ),
    reads=("aws",),
    not_looked_at="IAM gives no key back that was deleted",
    never_undone="IAM gives no key back that was deleted, under its id or with its secret: nothing to sabotage",
)
