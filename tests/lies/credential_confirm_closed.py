"""credential.confirm-closed: something lives after all, or nobody can say whether it does."""

from __future__ import annotations

from lies.case import Case, Lie
from lies.liar import FAULTS

from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.credential_confirm_closed import ACTION
from clawback.actions.credential_trace import ACTION as TRACE
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN


def _before(scene):
    scene.must(TRACE, agent=scene.agent, turn=1)
    scene.must(ROTATE_TOKEN, agent=scene.agent, name="vault-token")
    scene.must(ROTATE_KEY, agent=scene.agent, name="aws-key")
    scene.must(REFUSE_SESSIONS, agent=scene.agent, name="aws-session")


def _enable(scene, _outcome):
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Active")


def _disable(scene):
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Inactive")


CASE = Case(
    action=ACTION,
    scene="issuers",
    before=_before,
    params=lambda scene: {"agent": scene.agent},
    holds=lambda scene, _: not scene.key_works(scene.grants.key) and not scene.token_works(scene.token.token),
    lies=(
        Lie(what="a key is enabled again", behind=_enable, mend=_disable),
        Lie(
            what="IAM stops answering",
            part="aws",
            about=lambda request: "Action=ListAccessKeys" in request.body,
            answer=FAULTS["a busy server"],
        ),
    ),
    reads=("vault", "aws"),
    changes_nothing="it looks at what others closed, and uses it to see it refused",
)
