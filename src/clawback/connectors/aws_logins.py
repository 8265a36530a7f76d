"""AWS IAM: everything by which somebody signs in as a user, access keys included, and switching it off and on again.

What IAM can only delete (a password, the assignment of a multi-factor device) is listed as not switchable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clawback.connectors.aws_account import AwsAccount, asking, code_of
from clawback.errors import InvalidInput, NotFound
from clawback.world.cloud import UserCredential

__all__ = ["AwsLogins"]

# An operation that a stand-in, or a partition, does not have: there is nothing of that kind then.
_NOT_THERE = frozenset({"InvalidAction", "NotImplemented", "UnknownOperationException", "UnsupportedOperation"})

# kind → (list operation, key of the list, key of the id, key of the date)
_LISTS = {
    "access-key": ("list_access_keys", "AccessKeyMetadata", "AccessKeyId", "CreateDate"),
    "service-credential": (
        "list_service_specific_credentials",
        "ServiceSpecificCredentials",
        "ServiceSpecificCredentialId",
        "CreateDate",
    ),
    "ssh-key": ("list_ssh_public_keys", "SSHPublicKeys", "SSHPublicKeyId", "UploadDate"),
    "signing-certificate": ("list_signing_certificates", "Certificates", "CertificateId", "UploadDate"),
    "mfa-device": ("list_mfa_devices", "MFADevices", "SerialNumber", "EnableDate"),
}
# kind → (update operation, its parameter for the id)
_UPDATES = {
    "access-key": ("update_access_key", "AccessKeyId"),
    "service-credential": ("update_service_specific_credential", "ServiceSpecificCredentialId"),
    "ssh-key": ("update_ssh_public_key", "SSHPublicKeyId"),
    "signing-certificate": ("update_signing_certificate", "CertificateId"),
}


class AwsLogins(AwsAccount):
    """`clawback.world.cloud.CloudLogins`."""

    def user_credentials(self, user: str) -> tuple[UserCredential, ...]:
        """Every credential of a user that IAM lists, oldest first."""
        found = [item for kind in _LISTS for item in self._listed(user, kind)]
        if (password := self._password(user)) is not None:
            found.append(password)
        return tuple(sorted(found, key=lambda item: (item.created, item.kind, item.id)))

    def user_credential_switch(self, user: str, kind: str, identity: str, *, on: bool) -> None:
        """Set Active or Inactive. Switched off, already gone is success; switched on, it is `NotFound`."""
        if kind not in _UPDATES:
            raise InvalidInput(f"a {kind} cannot be switched off, only deleted")
        operation, parameter = _UPDATES[kind]
        status = "Active" if on else "Inactive"
        with asking(f"iam:{_camel(operation)}", absent_is_done=not on):
            getattr(self.own("iam"), operation)(UserName=user, **{parameter: identity}, Status=status)

    def _listed(self, user: str, kind: str) -> Iterator[UserCredential]:
        from botocore.exceptions import ClientError

        operation, items, identity, date = _LISTS[kind]
        iam = self.own("iam")
        with asking(f"iam:{_camel(operation)}"):
            try:
                pages: Any = (
                    iam.get_paginator(operation).paginate(UserName=user)
                    if iam.can_paginate(operation)
                    else [getattr(iam, operation)(UserName=user)]
                )
                rows = [row for page in pages for row in page[items]]
            except ClientError as error:
                if code_of(error) not in _NOT_THERE:
                    raise
                rows = []
        for row in rows:
            yield UserCredential(
                kind=kind,
                user=user,
                id=str(row[identity]),
                active=row.get("Status", "Active") == "Active",
                created=row[date].isoformat(),
                switchable=kind in _UPDATES,
            )

    def _password(self, user: str) -> UserCredential | None:
        try:
            with asking("iam:GetLoginProfile"):
                profile = self.own("iam").get_login_profile(UserName=user)["LoginProfile"]
        except NotFound:
            return None
        created = profile["CreateDate"].isoformat()
        return UserCredential(kind="password", user=user, id="console", active=True, created=created, switchable=False)


def _camel(operation: str) -> str:
    """`list_ssh_public_keys` → `ListSSHPublicKeys`, as permissions are spelt."""
    words = {"ssh": "SSH", "mfa": "MFA"}
    return "".join(words.get(word, word.title()) for word in operation.split("_"))
