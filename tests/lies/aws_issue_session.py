"""aws.issue-session: the new session is refused by the time it is looked at, or never was one."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_issue_session import ACTION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE

_NAME = "somebody-else"


def _who(scene):
    return {"agent": scene.agent, "name": "aws-session"}


def _role(scene):
    return scene.grants.role.rpartition("/")[2]


def _deny(scene, _outcome):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=_NAME, PolicyDocument=json.dumps(document))


def _give_back(scene, _outcome):
    scene.store.put(scene.agent, scene.grants.session_ref, scene.grants.session)


_MADE_UP = (
    "<Credentials><AccessKeyId>ASIAMADEUP0000000000</AccessKeyId><SecretAccessKey>made-up</SecretAccessKey>"
    "<SessionToken>made-up</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
    "<AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId><Arn>arn:aws:sts::000000000000:assumed-role/a/b</Arn>"
    "</AssumedRoleUser>"
)

CASE = Case(
    action=ACTION,
    scene="issuers",
    before=lambda scene: scene.must(REFUSE, **_who(scene)),
    params=_who,
    holds=lambda scene, _: (
        scene.current("aws-session") != scene.grants.session and scene.session_works(scene.current("aws-session"))
    ),
    lies=(
        Lie(
            what="it is denied everything",
            behind=_deny,
            mend=lambda scene: scene.iam.delete_role_policy(RoleName=_role(scene), PolicyName=_NAME),
        ),
        Lie(what="the old one is given back", behind=_give_back),
        Lie(
            what="a session is made up",
            part="aws",
            about=asked_aws("AssumeRole"),
            answer=aws_done("AssumeRole", _MADE_UP),
        ),
    ),
    reads=("aws",),
)
