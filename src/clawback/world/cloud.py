"""The cloud's side of the world: what actions may ask of AWS IAM, STS and EC2, or of what speaks their API.

A credential is a JSON text with `access_key_id`, `secret_access_key` and, for a session, `session_token`. A principal
is `user/NAME`, `role/NAME`, or the ARN of either. `NotFound` where the user, role or instance does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

__all__ = [
    "Cloud",
    "CloudKeys",
    "CloudLogins",
    "CloudPolicies",
    "CloudProfiles",
    "CloudSessions",
    "UserCredential",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCredential:
    """One way to sign in as a user, as IAM lists it.

    kind         `access-key`, `service-credential`, `ssh-key`, `signing-certificate`, `mfa-device`, `password`
    id           IAM's id of it, no secret; `console` for the password
    created      ISO 8601, UTC: when it was made, uploaded or enabled
    switchable   IAM can set it Inactive and Active again; what is not can only be deleted
    """

    kind: str
    user: str
    id: str
    active: bool
    created: str
    switchable: bool


class CloudKeys(Protocol):
    """Access keys of users."""

    def access_keys(self, user: str) -> dict[str, str]:
        """Access key id → `Active` | `Inactive`."""
        ...

    def access_key_create(self, user: str) -> tuple[str, str]:
        """A new key: (id, secret)."""
        ...

    def access_key_last_used(self, access_key_id: str) -> dict[str, str]:
        """`service`, `region`, `date` (ISO 8601) of its last use as AWS recorded it; empty where it was never used."""
        ...

    def access_key_activate(self, user: str, access_key_id: str) -> None:
        """Set Active. `NotFound` where it was deleted."""
        ...

    def access_key_deactivate(self, user: str, access_key_id: str) -> None:
        """Set Inactive. Already gone is success."""
        ...

    def access_key_delete(self, user: str, access_key_id: str) -> None:
        """Delete. Already gone is success."""
        ...


class CloudLogins(Protocol):
    """All credentials of users, whatever their kind."""

    def user_credentials(self, user: str) -> tuple[UserCredential, ...]:
        """Every credential of a user that IAM lists, oldest first."""
        ...

    def user_credential_switch(self, user: str, kind: str, identity: str, *, on: bool) -> None:
        """Set a switchable one Active or Inactive. Off: already gone is success. On: it is `NotFound`."""
        ...


class CloudPolicies(Protocol):
    """What principals may do, and who may become a role."""

    def inline_policy(self, principal: str, name: str) -> dict[str, Any] | None:
        """The document of an inline policy, None where it is absent."""
        ...

    def inline_policies(self, principal: str) -> tuple[str, ...]:
        """Names of all inline policies."""
        ...

    def inline_put(self, principal: str, name: str, document: dict[str, Any]) -> None:
        """Create or replace an inline policy."""
        ...

    def inline_delete(self, principal: str, name: str) -> None:
        """Remove an inline policy. Already gone is success."""
        ...

    def attached(self, principal: str) -> tuple[str, ...]:
        """ARNs of the managed policies that are attached."""
        ...

    def attach(self, principal: str, arn: str) -> None:
        """Attach a managed policy; attached already is success."""
        ...

    def detach(self, principal: str, arn: str) -> None:
        """Detach a managed policy; not attached is success."""
        ...

    def managed_arn(self, name: str) -> str:
        """The ARN that a managed policy of this account with that name has, or would have."""
        ...

    def managed_create(self, name: str, document: dict[str, Any]) -> None:
        """Make a managed policy. One with that name is left as it is: read it."""
        ...

    def managed_policy(self, arn: str) -> dict[str, Any] | None:
        """The document in force of a managed policy, None where there is none."""
        ...

    def managed_delete(self, arn: str) -> None:
        """Delete a managed policy. Already gone is success; one in use is a `ClawbackError`."""
        ...

    def boundary(self, principal: str) -> str:
        """ARN of the permissions boundary, empty where there is none."""
        ...

    def boundary_set(self, principal: str, arn: str) -> None:
        """Put this permissions boundary in the place of whatever is there."""
        ...

    def boundary_remove(self, principal: str) -> None:
        """Remove the permissions boundary. None there is success."""
        ...

    def trust(self, role: str) -> dict[str, Any]:
        """A role's trust policy document."""
        ...

    def trust_set(self, role: str, document: dict[str, Any]) -> None:
        """Replace it."""
        ...

    def sessions_refuse(self, role: str, *, before: str, name: str) -> None:
        """Attach to a role an inline policy `name` that denies everything to sessions issued before (ISO 8601, UTC)."""
        ...

    def sessions_allow(self, role: str, *, name: str) -> None:
        """Remove that inline policy."""
        ...

    def user_refuse(self, user: str, *, before: str, name: str) -> None:
        """The same for a user's own GetSessionToken sessions."""
        ...

    def user_allow(self, user: str, *, name: str) -> None:
        """Remove that inline policy."""
        ...


class CloudProfiles(Protocol):
    """Instance profiles: by them, instances are handed sessions of a role."""

    def instance_profiles(self, role: str) -> dict[str, str]:
        """Name → ARN of the instance profiles that hold the role."""
        ...

    def profile_role_remove(self, profile: str, role: str) -> None:
        """Take the role out of an instance profile. Not in it is success."""
        ...

    def profile_role_add(self, profile: str, role: str) -> None:
        """Put the role into an instance profile; in it already is success. `Refused` where it holds another."""
        ...

    def profile_associations(self, profile_arn: str) -> dict[str, str]:
        """Instance id → association id, of the instances that have this instance profile now."""
        ...

    def profile_disassociate(self, association: str) -> None:
        """Take an instance's profile from it. Already gone is success."""
        ...

    def profile_associate(self, instance: str, profile_arn: str) -> None:
        """Give an instance this profile; has it already is success, another is `Refused`, no instance `NotFound`."""
        ...


class CloudSessions(Protocol):
    """Sessions, and the uses of a credential by which a proof is made."""

    def works(self, credential: str) -> tuple[bool, str]:
        """Ask who the credential is (GetCallerIdentity): (authenticated, the issuer's answer).

        AWS answers this call under an explicit deny too: it tells a dead key from a live one, and nothing of sessions.
        """
        ...

    def permitted(self, credential: str) -> tuple[bool, str]:
        """Use a credential for something harmless that its holder may do: (accepted, the issuer's answer)."""
        ...

    def assume(self, credential: str, role: str, session: str) -> tuple[bool, str]:
        """Try to become a role with somebody's credential: (accepted, answer). A session thus won is thrown away."""
        ...

    def session_create(self, credential: str, role: str, session: str) -> str:
        """Become a role with somebody's credential, and keep the session's own. `Refused` where that is denied."""
        ...

    def user_session_create(self, credential: str) -> str:
        """A user's own session (GetSessionToken), which outlives its access key. `Refused` where that is denied."""
        ...


class Cloud(CloudKeys, CloudLogins, CloudPolicies, CloudProfiles, CloudSessions, Protocol):
    """All of it, for one account."""

    def prepare(self) -> None:
        """Load what is needed to ask, and ask nothing: an incident must not wait for it."""
        ...

    @property
    def settle(self) -> float:
        """Seconds for which IAM may still honour what was before a change; refusals must be seen to outlast it."""
        ...

    def server_time(self) -> datetime:
        """The issuer's clock (UTC, whole seconds, rounded down), by which it stamps the sessions that it issues."""
        ...
