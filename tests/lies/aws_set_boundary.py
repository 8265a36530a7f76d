"""aws.set-boundary: the boundary is taken away, exchanged, widened, or was never put."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_set_boundary import ACTION

_WIDE = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def _boundaries(scene):
    return [scene.true_cloud.boundary(who) for who in (f"user/{scene.grants.user}", scene.grants.role)]


def _exchange(scene, _outcome):
    name = f"wide-{scene.agent}"
    scene.true_cloud.managed_create(name, _WIDE)
    scene.true_cloud.boundary_set(f"user/{scene.grants.user}", scene.true_cloud.managed_arn(name))


def _widen(scene, outcome):
    """The same policy, by a version that allows everything."""
    scene.iam.create_policy_version(PolicyArn=outcome["arn"], PolicyDocument=json.dumps(_WIDE), SetAsDefault=True)


def _narrow_again(scene):
    for arn in {arn for arn in _boundaries(scene) if arn}:
        first = scene.iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
        scene.iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(first), SetAsDefault=True)


def _put_back(scene, _outcome):
    receipt = scene.journal.incident(scene.incident_id).receipts[-1]
    arn = receipt.captured["arn"]
    scene.true_cloud.managed_create(receipt.captured["policy"], _WIDE)
    scene.true_cloud.boundary_set(scene.grants.role, arn)


def _swallowed(verb, kind):
    call = f"{verb}{kind}PermissionsBoundary"
    return {"part": "aws", "about": asked_aws(call), "answer": aws_done(call)}


CASE = Case(
    action=ACTION,
    scene="issuers",
    params=lambda scene: {"agent": scene.agent, "name": "aws-session"},
    holds=lambda scene, _: not any(map(scene.session_works, (scene.grants.session, scene.grants.key))),
    lies=(
        Lie(
            what="the role's is removed",
            drifts=True,
            behind=lambda scene, _: scene.true_cloud.boundary_remove(scene.grants.role),
        ),
        Lie(what="the user's is exchanged for a wide one", drifts=True, behind=_exchange),
        Lie(what="the policy is widened", drifts=True, behind=_widen, mend=_narrow_again),
        Lie(what="binding the user is answered and not done", **_swallowed("Put", "User")),
        Lie(what="binding the role is answered and not done", **_swallowed("Put", "Role")),
    ),
    reads=("aws",),
    undone=lambda scene, _: _boundaries(scene) == ["", ""] and scene.session_works(scene.grants.session),
    revert_lies=(
        Lie(what="it is put back", behind=_put_back),
        Lie(what="removing is answered and not done", **_swallowed("Delete", "User")),
    ),
    revert_reads=("aws",),
)
