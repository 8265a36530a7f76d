"""Refuse one credential that was traced to the agent, such that it can be given back.

A key is set Inactive; a user's or role's sessions issued until now are denied everything, and so is a whole user or
role that was made with what the agent held; a right given with it is taken; a trust policy set with it trusts nobody.
"""

from __future__ import annotations

from clawback.actions._closing import closing_action

__all__ = ["ACTION"]

ACTION = closing_action(
    "credential.refuse",
    summary="Refuse one credential, right or trust that came of what the agent held.",
    scope="one key, the older sessions of one user or role, one user, role, right or trust policy that the agent made",
    needs=frozenset(
        {
            "iam:AttachRolePolicy",
            "iam:AttachUserPolicy",
            "iam:DeleteRolePolicy",
            "iam:DeleteUserPolicy",
            "iam:DetachRolePolicy",
            "iam:DetachUserPolicy",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:GetUser",
            "iam:GetUserPolicy",
            "iam:ListAccessKeys",
            "iam:ListAttachedRolePolicies",
            "iam:ListAttachedUserPolicies",
            "iam:ListRolePolicies",
            "iam:ListUserPolicies",
            "iam:PutRolePolicy",
            "iam:PutUserPolicy",
            "iam:UpdateAccessKey",
            "iam:UpdateAssumeRolePolicy",
            "sts:GetCallerIdentity",
        }
    ),
    reversible=True,
)
