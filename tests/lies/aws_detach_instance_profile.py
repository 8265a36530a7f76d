"""aws.detach-instance-profile: the role is put into its profile again, or never left it."""

from __future__ import annotations

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_detach_instance_profile import ACTION


def _names(scene):
    return {"InstanceProfileName": f"{scene.agent}-profile", "RoleName": scene.grants.role.rpartition("/")[2]}


def _begin(scene):
    scene.iam.create_instance_profile(InstanceProfileName=f"{scene.agent}-profile")
    scene.iam.add_role_to_instance_profile(**_names(scene))


def _roles(scene):
    found = scene.iam.get_instance_profile(InstanceProfileName=f"{scene.agent}-profile")["InstanceProfile"]
    return [role["RoleName"] for role in found["Roles"]]


def _swallowed(call):
    return {"part": "aws", "about": asked_aws(call), "answer": aws_done(call)}


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_begin,
    params=lambda scene: {"agent": scene.agent, "name": "aws-session"},
    holds=lambda scene, _: _roles(scene) == [],
    lies=(
        Lie(
            what="the role is put into it again",
            drifts=True,
            behind=lambda scene, _: scene.iam.add_role_to_instance_profile(**_names(scene)),
        ),
        Lie(what="taking it out is answered and not done", **_swallowed("RemoveRoleFromInstanceProfile")),
    ),
    reads=("aws",),
    undone=lambda scene, _: _roles(scene) == [_names(scene)["RoleName"]],
    revert_lies=(
        Lie(
            what="it is taken out again",
            behind=lambda scene, _: scene.iam.remove_role_from_instance_profile(**_names(scene)),
        ),
        Lie(what="putting it in is answered and not done", **_swallowed("AddRoleToInstanceProfile")),
    ),
    revert_reads=("aws",),
)
