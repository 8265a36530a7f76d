"""AWS STS: sessions, and the uses of a credential by which a proof is made."""

from __future__ import annotations

import json
from typing import Any

from clawback.connectors.aws_account import AwsAccount, asking, parse_credential, probe

__all__ = ["AwsSessions"]

_SESSION_SECONDS = 3600
_PROBE_SESSION_SECONDS = 900  # the shortest that AWS issues


class AwsSessions(AwsAccount):
    """`clawback.world.cloud.CloudSessions`."""

    def works(self, credential: str) -> tuple[bool, str]:
        """GetCallerIdentity with the credential."""
        with self.acting("sts", parse_credential(credential)) as client:
            return probe("sts:GetCallerIdentity", lambda: f"it is {client.get_caller_identity()['Arn']}")

    def permitted(self, credential: str) -> tuple[bool, str]:
        """ListBuckets with the credential: needs `s3:ListAllMyBuckets`, changes nothing."""
        with self.acting("s3", parse_credential(credential)) as client:
            return probe("s3:ListAllMyBuckets", lambda: f"{len(client.list_buckets()['Buckets'])} buckets listed")

    def assume(self, credential: str, role: str, session: str) -> tuple[bool, str]:
        """AssumeRole with the credential, for 15 minutes, and forget the session."""

        def become() -> str:
            client.assume_role(RoleArn=role, RoleSessionName=session, DurationSeconds=_PROBE_SESSION_SECONDS)
            return "a session was issued"

        with self.acting("sts", parse_credential(credential)) as client:
            return probe("sts:AssumeRole", become)

    def session_create(self, credential: str, role: str, session: str) -> str:
        """AssumeRole with the credential, for an hour."""
        with self.acting("sts", parse_credential(credential)) as client, asking("sts:AssumeRole"):
            answer = client.assume_role(RoleArn=role, RoleSessionName=session, DurationSeconds=_SESSION_SECONDS)
        return _credential(answer["Credentials"])

    def user_session_create(self, credential: str) -> str:
        """GetSessionToken with the credential, for an hour."""
        with self.acting("sts", parse_credential(credential)) as client, asking("sts:GetSessionToken"):
            answer = client.get_session_token(DurationSeconds=_SESSION_SECONDS)
        return _credential(answer["Credentials"])


def _credential(issued: dict[str, Any]) -> str:
    return json.dumps(
        {
            "access_key_id": issued["AccessKeyId"],
            "secret_access_key": issued["SecretAccessKey"],
            "session_token": issued["SessionToken"],
            "expires": issued["Expiration"].isoformat(),
        }
    )
