"""aws.restore-trust: the role is closed again, or another document was put, or nothing."""

from __future__ import annotations

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_close_trust import ACTION as CLOSE
from clawback.actions.aws_close_trust import CLOSED
from clawback.actions.aws_restore_trust import ACTION


def _who(scene):
    return {"agent": scene.agent, "name": "aws-session"}


def _close(scene, _outcome):
    scene.true_cloud.trust_set(scene.grants.role, CLOSED)


def _trust_all(scene, _outcome):
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    scene.true_cloud.trust_set(scene.grants.role, {"Version": "2012-10-17", "Statement": [statement]})


def _restored(scene):
    arn = scene.iam.get_user(UserName=scene.grants.user)["User"]["Arn"]
    named = [one["Principal"] for one in scene.true_cloud.trust(scene.grants.role)["Statement"]]
    return named == [{"AWS": arn}] and scene.true_cloud.assume(scene.grants.key, scene.grants.role, "outside")[0]


_SWALLOWED = {
    "part": "aws",
    "about": asked_aws("UpdateAssumeRolePolicy"),
    "answer": aws_done("UpdateAssumeRolePolicy"),
}

CASE = Case(
    action=ACTION,
    scene="issuers",
    before=lambda scene: scene.must(CLOSE, **_who(scene)),
    params=_who,
    holds=lambda scene, _: _restored(scene),
    lies=(
        Lie(what="it is closed again", behind=_close),
        Lie(what="everybody is trusted", behind=_trust_all),
        Lie(what="restoring is answered and not done", **_SWALLOWED),
    ),
    reads=("aws",),
    undone=lambda scene, _: scene.true_cloud.trust(scene.grants.role) == CLOSED,
    revert_lies=(
        Lie(what="everybody is trusted", behind=_trust_all),
        Lie(what="closing is answered and not done", **_SWALLOWED),
    ),
    revert_reads=("aws",),
)
