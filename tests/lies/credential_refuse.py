"""credential.refuse: the key that the agent made is enabled again, or never was disabled."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.credential_refuse import ACTION
from clawback.actions.credential_trace import ACTION as TRACE

_ALL = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]}'


def _before(scene):
    """The agent makes itself another key, which the trace finds beside its own."""
    scene.iam.put_user_policy(UserName=scene.grants.user, PolicyName="iam", PolicyDocument=_ALL)
    rogue = scene.aws.client("iam", credential=scene.grants.key)
    made = rogue.create_access_key(UserName=scene.grants.user)["AccessKey"]
    scene.made_id = made["AccessKeyId"]
    scene.made = json.dumps({"access_key_id": scene.made_id, "secret_access_key": made["SecretAccessKey"]})
    scene.must(TRACE, agent=scene.agent, turn=1)


def _set(status):
    return lambda scene, _outcome: scene.iam.update_access_key(
        UserName=scene.grants.user, AccessKeyId=scene.made_id, Status=status
    )


def _swallowed(status):
    return {
        "part": "aws",
        "about": asked_aws("UpdateAccessKey", f"Status={status}"),
        "answer": aws_done("UpdateAccessKey"),
    }


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "kind": "aws-access-key", "id": scene.made_id},
    holds=lambda scene, _: not scene.key_works(scene.made),
    lies=(
        Lie(what="the key is enabled again", drifts=True, behind=_set("Active")),
        Lie(what="disabling it is answered and not done", **_swallowed("Inactive")),
    ),
    reads=("aws",),
    undone=lambda scene, _: scene.key_works(scene.made),
    revert_lies=(
        Lie(what="the key is disabled again", behind=_set("Inactive")),
        Lie(what="enabling it is answered and not done", **_swallowed("Active")),
    ),
    revert_reads=("aws",),
)
