"""aws.close-trust: somebody is trusted again, or nobody was ever shut out."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_close_trust import ACTION, CLOSED


def _trust(scene):
    return scene.true_cloud.trust(scene.grants.role)


def _open(scene, _outcome):
    arn = scene.iam.get_user(UserName=scene.grants.user)["User"]["Arn"]
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": arn}}
    scene.true_cloud.trust_set(scene.grants.role, {"Version": "2012-10-17", "Statement": [statement]})


def _open_beside(scene, _outcome):
    """The denial stands, of something else, beside somebody who is trusted."""
    arn = scene.iam.get_user(UserName=scene.grants.user)["User"]["Arn"]
    denied = {**CLOSED["Statement"][0], "Action": "sts:TagSession"}
    allowed = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": arn}}
    scene.true_cloud.trust_set(scene.grants.role, {"Version": "2012-10-17", "Statement": [denied, allowed]})


def _assumed(scene):
    return scene.true_cloud.assume(scene.grants.key, scene.grants.role, "from-outside")[0]


_SWALLOWED = {
    "part": "aws",
    "about": asked_aws("UpdateAssumeRolePolicy"),
    "answer": aws_done("UpdateAssumeRolePolicy"),
}

CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "aws-session"},
    holds=lambda scene, _: not _assumed(scene) and json.dumps(_trust(scene)) == json.dumps(CLOSED),
    lies=(
        Lie(what="the user is trusted again", drifts=True, behind=_open),
        Lie(what="the user is trusted beside the denial", drifts=True, behind=_open_beside),
        Lie(what="closing is answered and not done", **_SWALLOWED),
    ),
    reads=("aws",),
    undone=lambda scene, _: _assumed(scene),
    revert_lies=(
        Lie(
            what="it is closed again",
            behind=lambda scene, _: scene.true_cloud.trust_set(scene.grants.role, CLOSED),
        ),
        Lie(what="opening is answered and not done", **_SWALLOWED),
    ),
    revert_reads=("aws",),
)
