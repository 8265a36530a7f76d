"""aws.deny-principal: the denial is taken away, emptied, or was never put."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_deny_principal import ACTION, DENY


def _role(scene):
    return scene.grants.role.rpartition("/")[2]


def _policies(scene):
    """(call's arguments, policy name) of each denial that stands."""
    user, role = {"UserName": scene.grants.user}, {"RoleName": _role(scene)}
    listed = [
        *((user, name) for name in scene.iam.list_user_policies(**user)["PolicyNames"]),
        *((role, name) for name in scene.iam.list_role_policies(**role)["PolicyNames"]),
    ]
    return [(who, name) for who, name in listed if name.startswith("clawback-deny-")]


def _empty(scene, outcome):
    document = json.loads(json.dumps(DENY))
    document["Statement"][0]["Action"] = "glacier:*"
    name = outcome["policy"]
    scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=name, PolicyDocument=json.dumps(document))


def _put_back(scene, _outcome):
    receipt = scene.journal.incident(scene.incident_id).receipts[-1]
    name, document = receipt.captured["policy"], json.dumps(DENY)
    scene.iam.put_user_policy(UserName=scene.grants.user, PolicyName=name, PolicyDocument=document)


def _swallowed(verb, kind):
    call = f"{verb}{kind}Policy"
    return {"part": "aws", "about": asked_aws(call), "answer": aws_done(call)}


CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "aws-session"},
    holds=lambda scene, _: not any(map(scene.session_works, (scene.grants.session, scene.grants.key))),
    lies=(
        Lie(
            what="the user's is removed",
            drifts=True,
            behind=lambda scene, outcome: scene.iam.delete_user_policy(
                UserName=scene.grants.user, PolicyName=outcome["policy"]
            ),
        ),
        Lie(
            what="the role's is removed",
            drifts=True,
            behind=lambda scene, outcome: scene.iam.delete_role_policy(
                RoleName=_role(scene), PolicyName=outcome["policy"]
            ),
        ),
        Lie(what="the role's denies nothing that matters", drifts=True, behind=_empty),
        Lie(what="denying the user is answered and not done", **_swallowed("Put", "User")),
        Lie(what="denying the role is answered and not done", **_swallowed("Put", "Role")),
    ),
    reads=("aws",),
    undone=lambda scene, _: not _policies(scene) and scene.session_works(scene.grants.session),
    revert_lies=(
        Lie(what="it is put back", behind=_put_back),
        Lie(what="removing is answered and not done", **_swallowed("Delete", "Role")),
    ),
    revert_reads=("aws",),
)
