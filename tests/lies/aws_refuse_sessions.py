"""aws.refuse-sessions: the deny policies are taken away, weakened, or were never put."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_refuse_sessions import ACTION


def _role(scene):
    return scene.grants.role.rpartition("/")[2]


def _remove_from_role(scene, outcome):
    scene.iam.delete_role_policy(RoleName=_role(scene), PolicyName=outcome["policy"])


def _remove_from_user(scene, outcome):
    scene.iam.delete_user_policy(UserName=scene.grants.user, PolicyName=outcome["policy"])


def _weaken(scene, outcome):
    """The same name, and a moment that every session is younger than."""
    document = scene.iam.get_role_policy(RoleName=_role(scene), PolicyName=outcome["policy"])["PolicyDocument"]
    statement = document["Statement"][0]
    statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"] = "2001-01-01T00:00:00Z"
    scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=outcome["policy"], PolicyDocument=json.dumps(document))


def _empty(scene, outcome):
    """The same name, and nothing denied that the session does."""
    document = scene.iam.get_role_policy(RoleName=_role(scene), PolicyName=outcome["policy"])["PolicyDocument"]
    document["Statement"][0]["Action"] = "glacier:*"
    scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=outcome["policy"], PolicyDocument=json.dumps(document))


def _policy(scene):
    return f"clawback-{scene.incident_id}-aws-session"


def _names(scene):
    user = scene.iam.list_user_policies(UserName=scene.grants.user)["PolicyNames"]
    return [*user, *scene.iam.list_role_policies(RoleName=_role(scene))["PolicyNames"]]


def _put_back(scene, _outcome):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=_policy(scene), PolicyDocument=json.dumps(document))


def _holds(scene, _receipt):
    return not scene.session_works(scene.grants.session) and _names(scene).count(_policy(scene)) == 2


CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "aws-session"},
    holds=_holds,
    lies=(
        Lie(what="the role's policy is removed", drifts=True, behind=_remove_from_role),
        Lie(what="the user's policy is removed", drifts=True, behind=_remove_from_user),
        Lie(
            what="the moment is moved to long ago",
            drifts=True,
            behind=_weaken,
            mend=lambda scene: scene.iam.delete_role_policy(RoleName=_role(scene), PolicyName=_policy(scene)),
        ),
        Lie(
            what="the policy denies something else",
            drifts=True,
            behind=_empty,
            mend=lambda scene: scene.iam.delete_role_policy(RoleName=_role(scene), PolicyName=_policy(scene)),
        ),
        Lie(
            what="the role's policy is answered and not put",
            part="aws",
            about=asked_aws("PutRolePolicy"),
            answer=aws_done("PutRolePolicy"),
        ),
        Lie(
            what="the user's policy is answered and not put",
            part="aws",
            about=asked_aws("PutUserPolicy"),
            answer=aws_done("PutUserPolicy"),
        ),
    ),
    reads=("aws",),
    undone=lambda scene, _: scene.session_works(scene.grants.session) and _policy(scene) not in _names(scene),
    revert_lies=(
        Lie(what="another policy is put in its place", behind=_put_back),
        Lie(
            what="removing it from the role is answered and not done",
            part="aws",
            about=asked_aws("DeleteRolePolicy"),
            answer=aws_done("DeleteRolePolicy"),
        ),
        Lie(
            what="removing it from the user is answered and not done",
            part="aws",
            about=asked_aws("DeleteUserPolicy"),
            answer=aws_done("DeleteUserPolicy"),
        ),
    ),
    revert_reads=("aws",),
)
