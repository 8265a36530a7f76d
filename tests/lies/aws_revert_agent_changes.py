"""aws.revert-agent-changes: what was undone is done again, by anybody, or was never undone."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_revert_agent_changes import ACTION

_ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
_ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


def _begin(scene):
    """The agent may change IAM, and gives a user of its choice everything, in two ways."""
    scene.iam.create_user(UserName=f"{scene.agent}-friend")
    scene.iam.put_user_policy(UserName=scene.grants.user, PolicyName="iam", PolicyDocument=_ALL)
    scene.rogue = scene.aws.client("iam", credential=scene.grants.key)
    _attach(scene, None)
    _put(scene, None)


def _attach(scene, _outcome):
    scene.rogue.attach_user_policy(UserName=f"{scene.agent}-friend", PolicyArn=_ADMINISTRATOR)


def _put(scene, _outcome):
    scene.rogue.put_user_policy(UserName=f"{scene.agent}-friend", PolicyName="all", PolicyDocument=_ALL)


def _put_by_another(scene, _outcome):
    scene.iam.put_user_policy(UserName=f"{scene.agent}-friend", PolicyName="all", PolicyDocument=_ALL)


def _rights(scene):
    friend = f"user/{scene.agent}-friend"
    return len(scene.true_cloud.attached(friend)) + len(scene.true_cloud.inline_policies(friend))


def _swallowed(call):
    return {"part": "aws", "about": asked_aws(call), "answer": aws_done(call)}


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_begin,
    params=lambda scene: {"agent": scene.agent, "since": "2020-01-01T00:00:00Z"},
    holds=lambda scene, _: _rights(scene) == 0,
    lies=(
        Lie(what="the agent attaches it again", drifts=True, behind=_attach),
        Lie(what="somebody puts it again", drifts=True, behind=_put_by_another),
        Lie(what="detaching is answered and not done", **_swallowed("DetachUserPolicy")),
        Lie(what="removing is answered and not done", **_swallowed("DeleteUserPolicy")),
    ),
    reads=("aws",),
    undone=lambda scene, _: _rights(scene) == 2,
    revert_lies=(
        Lie(
            what="it is detached again",
            behind=lambda scene, _: scene.true_cloud.detach(f"user/{scene.agent}-friend", _ADMINISTRATOR),
        ),
        Lie(what="attaching is answered and not done", **_swallowed("AttachUserPolicy")),
    ),
    revert_reads=("aws",),
)
