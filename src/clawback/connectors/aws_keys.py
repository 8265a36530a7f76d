"""AWS IAM: access keys of a user."""

from __future__ import annotations

from clawback.connectors.aws_account import AwsAccount, asking

__all__ = ["AwsKeys"]


class AwsKeys(AwsAccount):
    """`clawback.world.cloud.CloudKeys`."""

    def access_keys(self, user: str) -> dict[str, str]:
        """Access key id → `Active` | `Inactive`."""
        with asking("iam:ListAccessKeys"):
            listed = self.own("iam").list_access_keys(UserName=user)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def access_key_create(self, user: str) -> tuple[str, str]:
        """A new key: (id, secret)."""
        with asking("iam:CreateAccessKey"):
            key = self.own("iam").create_access_key(UserName=user)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def access_key_last_used(self, access_key_id: str) -> dict[str, str]:
        """When and where a key was last used, as AWS recorded it."""
        with asking("iam:GetAccessKeyLastUsed"):
            answer = self.own("iam").get_access_key_last_used(AccessKeyId=access_key_id)
        used = answer.get("AccessKeyLastUsed", {})
        date = used.get("LastUsedDate")
        if date is None:
            return {}
        return {"service": used.get("ServiceName", ""), "region": used.get("Region", ""), "date": date.isoformat()}

    def access_key_activate(self, user: str, access_key_id: str) -> None:
        """Set Active."""
        with asking("iam:UpdateAccessKey"):
            self.own("iam").update_access_key(UserName=user, AccessKeyId=access_key_id, Status="Active")

    def access_key_deactivate(self, user: str, access_key_id: str) -> None:
        """Set Inactive."""
        with asking("iam:UpdateAccessKey", absent_is_done=True):
            self.own("iam").update_access_key(UserName=user, AccessKeyId=access_key_id, Status="Inactive")

    def access_key_delete(self, user: str, access_key_id: str) -> None:
        """Delete."""
        with asking("iam:DeleteAccessKey", absent_is_done=True):
            self.own("iam").delete_access_key(UserName=user, AccessKeyId=access_key_id)
