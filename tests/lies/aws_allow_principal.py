"""aws.allow-principal: a denial stays or comes back, or what the agent held works again."""

from __future__ import annotations

import json

from lies.answers import asked_aws, aws_done
from lies.case import Case, Lie

from clawback.actions.aws_allow_principal import ACTION
from clawback.actions.aws_deny_principal import ACTION as DENY
from clawback.actions.aws_deny_principal import DENY as DENIAL
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY


def _session(scene):
    return {"agent": scene.agent, "name": "aws-session"}


def _denied_and_replaced(scene):
    scene.must(DENY, **_session(scene))
    scene.must(ROTATE_KEY, agent=scene.agent, name="aws-key")
    scene.must(REFUSE_SESSIONS, **_session(scene))


def _role(scene):
    return scene.grants.role.rpartition("/")[2]


def _denials(scene):
    user, role = {"UserName": scene.grants.user}, {"RoleName": _role(scene)}
    listed = [
        *scene.iam.list_user_policies(**user)["PolicyNames"],
        *scene.iam.list_role_policies(**role)["PolicyNames"],
    ]
    return [name for name in listed if name.startswith("clawback-deny-")]


def _name(scene):
    receipts = scene.journal.incident(scene.incident_id).receipts
    return next(x for x in receipts if x.action == DENY.id).captured["policy"]


def _put_back(scene, _outcome):
    scene.iam.put_user_policy(UserName=scene.grants.user, PolicyName=_name(scene), PolicyDocument=json.dumps(DENIAL))


def _open_sessions(scene, _outcome):
    """What refuses the role's old sessions is removed, and the stolen one works again."""
    role = _role(scene)
    names = [x for x in scene.iam.list_role_policies(RoleName=role)["PolicyNames"] if x.startswith("clawback-")]
    scene.refusals = {
        name: scene.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names
    }
    for name in names:
        scene.iam.delete_role_policy(RoleName=role, PolicyName=name)


def _refuse_again(scene):
    for name, document in scene.refusals.items():
        scene.iam.put_role_policy(RoleName=_role(scene), PolicyName=name, PolicyDocument=json.dumps(document))


def _take_off(scene, _outcome):
    scene.iam.delete_user_policy(UserName=scene.grants.user, PolicyName=_name(scene))


def _new_key_works(scene):
    return scene.true_cloud.permitted(scene.store.current(scene.agent, "aws-key"))[0]


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_denied_and_replaced,
    params=lambda scene: {"agent": scene.agent},
    holds=lambda scene, _: (
        not _denials(scene) and _new_key_works(scene) and not scene.session_works(scene.grants.session)
    ),
    lies=(
        Lie(what="the user's is put back", behind=_put_back),
        Lie(what="what the agent held works again", behind=_open_sessions, mend=_refuse_again),
        Lie(
            what="removing is answered and not done",
            part="aws",
            about=asked_aws("DeleteRolePolicy"),
            answer=aws_done("DeleteRolePolicy"),
        ),
    ),
    reads=("aws",),
    undone=lambda scene, _: len(_denials(scene)) == 2 and not _new_key_works(scene),
    revert_lies=(
        Lie(what="the user's is removed again", behind=_take_off),
        Lie(
            what="denying is answered and not done",
            part="aws",
            about=asked_aws("PutUserPolicy"),
            answer=aws_done("PutUserPolicy"),
        ),
    ),
    revert_reads=("aws",),
)
