"""AWS IAM: what a user or a role may do. Inline and managed policies, permissions boundaries, role trust.

A principal is `user/NAME`, `role/NAME`, or the ARN of either; paths within ARNs are left out, as IAM's API does.
"""

from __future__ import annotations

import json
from typing import Any

from clawback.connectors.aws_account import AwsAccount, asking, code_of
from clawback.errors import InvalidInput, NotFound

__all__ = ["AwsPolicies"]


class AwsPolicies(AwsAccount):
    """`clawback.world.cloud.CloudPolicies`."""

    def inline_policy(self, principal: str, name: str) -> dict[str, Any] | None:
        """The document, None where it is absent."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"get_{kind}_policy")
        try:
            with asking(f"iam:Get{kind.title()}Policy"):
                return dict(call(**{f"{kind.title()}Name": who}, PolicyName=name)["PolicyDocument"])
        except NotFound:
            return None

    def inline_policies(self, principal: str) -> tuple[str, ...]:
        """Names of all inline policies."""
        kind, who = _split(principal)
        with asking(f"iam:List{kind.title()}Policies"):
            pages = self.own("iam").get_paginator(f"list_{kind}_policies").paginate(**{f"{kind.title()}Name": who})
            return tuple(name for page in pages for name in page["PolicyNames"])

    def inline_put(self, principal: str, name: str, document: dict[str, Any]) -> None:
        """Create or replace an inline policy."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"put_{kind}_policy")
        with asking(f"iam:Put{kind.title()}Policy"):
            call(**{f"{kind.title()}Name": who}, PolicyName=name, PolicyDocument=json.dumps(document))

    def inline_delete(self, principal: str, name: str) -> None:
        """Remove an inline policy. Already gone is success."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"delete_{kind}_policy")
        with asking(f"iam:Delete{kind.title()}Policy", absent_is_done=True):
            call(**{f"{kind.title()}Name": who}, PolicyName=name)

    def attached(self, principal: str) -> tuple[str, ...]:
        """ARNs of the managed policies that are attached."""
        kind, who = _split(principal)
        with asking(f"iam:ListAttached{kind.title()}Policies"):
            pager = self.own("iam").get_paginator(f"list_attached_{kind}_policies")
            pages = pager.paginate(**{f"{kind.title()}Name": who})
            return tuple(policy["PolicyArn"] for page in pages for policy in page["AttachedPolicies"])

    def attach(self, principal: str, arn: str) -> None:
        """Attach a managed policy; attached already is success."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"attach_{kind}_policy")
        with asking(f"iam:Attach{kind.title()}Policy"):
            call(**{f"{kind.title()}Name": who}, PolicyArn=arn)

    def detach(self, principal: str, arn: str) -> None:
        """Detach a managed policy; not attached is success."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"detach_{kind}_policy")
        with asking(f"iam:Detach{kind.title()}Policy", absent_is_done=True):
            call(**{f"{kind.title()}Name": who}, PolicyArn=arn)

    def managed_arn(self, name: str) -> str:
        """The ARN that a managed policy of this account with that name has, or would have."""
        with asking("sts:GetCallerIdentity"):
            arn = self.own("sts").get_caller_identity()["Arn"]
        partition, account = arn.split(":")[1], arn.split(":")[4]
        return f"arn:{partition}:iam::{account}:policy/{name}"

    def managed_create(self, name: str, document: dict[str, Any]) -> None:
        """Make a managed policy. One with that name is left as it is: read it."""
        from botocore.exceptions import ClientError

        with asking("iam:CreatePolicy"):
            try:
                self.own("iam").create_policy(PolicyName=name, PolicyDocument=json.dumps(document))
            except ClientError as error:
                if code_of(error) != "EntityAlreadyExists":
                    raise

    def managed_policy(self, arn: str) -> dict[str, Any] | None:
        """The document in force (the default version's) of a managed policy, None where there is none."""
        iam = self.own("iam")
        try:
            with asking("iam:GetPolicy"):
                version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            with asking("iam:GetPolicyVersion"):
                document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        except NotFound:
            return None
        return dict(json.loads(document) if isinstance(document, str) else document)

    def managed_delete(self, arn: str) -> None:
        """Delete a managed policy. Already gone is success; one in use is a `ClawbackError`."""
        iam = self.own("iam")
        with asking("iam:ListPolicyVersions", absent_is_done=True):
            for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:  # at most five
                if not version["IsDefaultVersion"]:
                    iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        with asking("iam:DeletePolicy", absent_is_done=True):
            iam.delete_policy(PolicyArn=arn)

    def boundary(self, principal: str) -> str:
        """ARN of the permissions boundary, empty where there is none."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"get_{kind}")
        with asking(f"iam:Get{kind.title()}"):
            found = call(**{f"{kind.title()}Name": who})[kind.title()]
        return str(found.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", ""))

    def boundary_set(self, principal: str, arn: str) -> None:
        """Put this permissions boundary in the place of whatever is there."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"put_{kind}_permissions_boundary")
        with asking(f"iam:Put{kind.title()}PermissionsBoundary"):
            call(**{f"{kind.title()}Name": who}, PermissionsBoundary=arn)

    def boundary_remove(self, principal: str) -> None:
        """Remove the permissions boundary. None there is success."""
        kind, who = _split(principal)
        call = getattr(self.own("iam"), f"delete_{kind}_permissions_boundary")
        with asking(f"iam:Delete{kind.title()}PermissionsBoundary", absent_is_done=True):
            call(**{f"{kind.title()}Name": who})

    def trust(self, role: str) -> dict[str, Any]:
        """A role's trust policy."""
        with asking("iam:GetRole"):
            return dict(self.own("iam").get_role(RoleName=_split(role)[1])["Role"]["AssumeRolePolicyDocument"])

    def trust_set(self, role: str, document: dict[str, Any]) -> None:
        """Replace it."""
        with asking("iam:UpdateAssumeRolePolicy"):
            self.own("iam").update_assume_role_policy(RoleName=_split(role)[1], PolicyDocument=json.dumps(document))

    def sessions_refuse(self, role: str, *, before: str, name: str) -> None:
        """Deny everything to a role's sessions issued before."""
        self.inline_put(role, name, _deny_before(before))

    def sessions_allow(self, role: str, *, name: str) -> None:
        """Remove that policy."""
        self.inline_delete(role, name)

    def user_refuse(self, user: str, *, before: str, name: str) -> None:
        """Deny everything to a user's sessions issued before; requests signed with a key alone are not concerned."""
        self.inline_put(f"user/{user}", name, _deny_before(before))

    def user_allow(self, user: str, *, name: str) -> None:
        """Remove that policy."""
        self.inline_delete(f"user/{user}", name)


def _split(principal: str) -> tuple[str, str]:
    """`arn:aws:iam::1:role/path/NAME` and `role/NAME` → (role, NAME); users alike."""
    resource = principal.rpartition(":")[2]
    kind, _, rest = resource.partition("/")
    name = rest.rpartition("/")[2]
    if kind not in ("user", "role") or not name:
        raise InvalidInput(f"{principal[:200]!a} is no IAM principal", hint="user/NAME, role/NAME, or the ARN of one")
    return kind, name


def _deny_before(before: str) -> dict[str, Any]:
    statement = {
        "Sid": "ClawbackRefuseOlderSessions",
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": before}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
