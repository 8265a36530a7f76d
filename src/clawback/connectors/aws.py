"""AWS IAM and STS by boto3: `clawback.world.Cloud`. Also what speaks their API, by `endpoint_url`.

Nothing is retried here: a call that got no answer is `Unreachable` within two seconds, and whoever asked tries again
from the actual state. Error messages carry the operation and AWS's error code, never a request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable

__all__ = ["AwsConnector"]

_CONNECT_SECONDS = 1.0
_READ_SECONDS = 1.8
# IAM is eventually consistent; changes are reported to take effect within some seconds. A stand-in answers for itself.
_AWS_SETTLE_SECONDS = 5.0
_SESSION_SECONDS = 3600
_PROBE_SESSION_SECONDS = 900  # the shortest that AWS issues

# Codes by which AWS says no to a credential, as opposed to failing to answer. Expiry is a refusal and not our doing.
_REFUSALS = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError)  # what reading an answer of another shape raises
_TRANSIENT = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "ServiceUnavailable"})


class AwsConnector:
    """One account, by long-lived clients; any number of threads (boto3's clients are safe to share).

    region             where STS is asked
    endpoint_url       a stand-in for AWS; None is AWS
    credentials_file   our own key as JSON (`access_key_id`, `secret_access_key`, optional `session_token`); None leaves
                       it to boto3's chain
    settle             see `Cloud.settle`; None: 5 s on AWS, 0 on a stand-in
    """

    def __init__(
        self,
        *,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        credentials_file: Path | None = None,
        settle: float | None = None,
    ) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._credentials_file = credentials_file
        self._settle = settle
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    def prepare(self) -> None:
        """Load the library and its service descriptions, half a second's work, before an incident waits for it.

        Contacts nobody, and fails on nothing: what is wrong with our own credentials is said when they are first used.
        """
        for service in ("iam", "sts", "s3"):
            self._client(service, {"access_key_id": "none", "secret_access_key": "none"})

    @property
    def settle(self) -> float:
        """Seconds for which IAM may still honour what was before."""
        if self._settle is not None:
            return self._settle
        return 0.0 if self._endpoint_url else _AWS_SETTLE_SECONDS

    def server_time(self) -> datetime:
        """STS's clock, from its `Date` header: whole seconds, rounded down."""
        with _asking("sts:GetCallerIdentity"):
            answer = self._sts.get_caller_identity()
        stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(stated).astimezone(UTC)
        except (TypeError, ValueError):
            raise Unreachable("STS answered without a readable Date header") from None

    def access_keys(self, user: str) -> dict[str, str]:
        """Access key id → `Active` | `Inactive`."""
        with _asking("iam:ListAccessKeys"):
            listed = self._iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def access_key_create(self, user: str) -> tuple[str, str]:
        """A new key: (id, secret)."""
        with _asking("iam:CreateAccessKey"):
            key = self._iam.create_access_key(UserName=user)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def access_key_last_used(self, access_key_id: str) -> dict[str, str]:
        """When and where a key was last used, as AWS recorded it."""
        with _asking("iam:GetAccessKeyLastUsed"):
            used = self._iam.get_access_key_last_used(AccessKeyId=access_key_id).get("AccessKeyLastUsed", {})
        date = used.get("LastUsedDate")
        if date is None:
            return {}
        return {"service": used.get("ServiceName", ""), "region": used.get("Region", ""), "date": date.isoformat()}

    def access_key_activate(self, user: str, access_key_id: str) -> None:
        """Set Active."""
        with _asking("iam:UpdateAccessKey"):
            self._iam.update_access_key(UserName=user, AccessKeyId=access_key_id, Status="Active")

    def access_key_deactivate(self, user: str, access_key_id: str) -> None:
        """Set Inactive."""
        with _asking("iam:UpdateAccessKey", absent_is_done=True):
            self._iam.update_access_key(UserName=user, AccessKeyId=access_key_id, Status="Inactive")

    def access_key_delete(self, user: str, access_key_id: str) -> None:
        """Delete."""
        with _asking("iam:DeleteAccessKey", absent_is_done=True):
            self._iam.delete_access_key(UserName=user, AccessKeyId=access_key_id)

    def sessions_refuse(self, role: str, *, before: str, name: str) -> None:
        """Deny everything to a role's sessions issued before."""
        with _asking("iam:PutRolePolicy"):
            self._iam.put_role_policy(RoleName=_role(role), PolicyName=name, PolicyDocument=_deny_before(before))

    def sessions_allow(self, role: str, *, name: str) -> None:
        """Remove that policy."""
        with _asking("iam:DeleteRolePolicy", absent_is_done=True):
            self._iam.delete_role_policy(RoleName=_role(role), PolicyName=name)

    def user_refuse(self, user: str, *, before: str, name: str) -> None:
        """Deny everything to a user's sessions issued before; requests signed with a key alone are not concerned."""
        with _asking("iam:PutUserPolicy"):
            self._iam.put_user_policy(UserName=user, PolicyName=name, PolicyDocument=_deny_before(before))

    def user_allow(self, user: str, *, name: str) -> None:
        """Remove that policy."""
        with _asking("iam:DeleteUserPolicy", absent_is_done=True):
            self._iam.delete_user_policy(UserName=user, PolicyName=name)

    def inline_policy(self, role_or_user: str, name: str) -> dict[str, Any] | None:
        """The document, None where it is absent."""
        kind, _, user = role_or_user.partition("/")
        try:
            if kind == "user":
                with _asking("iam:GetUserPolicy"):
                    return dict(self._iam.get_user_policy(UserName=user, PolicyName=name)["PolicyDocument"])
            with _asking("iam:GetRolePolicy"):
                answer = self._iam.get_role_policy(RoleName=_role(role_or_user), PolicyName=name)
                return dict(answer["PolicyDocument"])
        except NotFound:
            return None

    def trust(self, role: str) -> dict[str, Any]:
        """A role's trust policy."""
        with _asking("iam:GetRole"):
            return dict(self._iam.get_role(RoleName=_role(role))["Role"]["AssumeRolePolicyDocument"])

    def trust_set(self, role: str, document: dict[str, Any]) -> None:
        """Replace it."""
        with _asking("iam:UpdateAssumeRolePolicy"):
            self._iam.update_assume_role_policy(RoleName=_role(role), PolicyDocument=json.dumps(document))

    def works(self, credential: str) -> tuple[bool, str]:
        """GetCallerIdentity with the credential."""
        client = self._client("sts", _parse(credential))
        return _probe("sts:GetCallerIdentity", lambda: f"it is {client.get_caller_identity()['Arn']}")

    def permitted(self, credential: str) -> tuple[bool, str]:
        """ListBuckets with the credential: needs `s3:ListAllMyBuckets`, changes nothing."""
        client = self._client("s3", _parse(credential))
        return _probe("s3:ListAllMyBuckets", lambda: f"{len(client.list_buckets()['Buckets'])} buckets listed")

    def assume(self, credential: str, role: str, session: str) -> tuple[bool, str]:
        """AssumeRole with the credential, for 15 minutes, and forget the session."""
        client = self._client("sts", _parse(credential))

        def become() -> str:
            client.assume_role(RoleArn=role, RoleSessionName=session, DurationSeconds=_PROBE_SESSION_SECONDS)
            return "a session was issued"

        return _probe("sts:AssumeRole", become)

    def session_create(self, credential: str, role: str, session: str) -> str:
        """AssumeRole with the credential, for an hour."""
        client = self._client("sts", _parse(credential))
        with _asking("sts:AssumeRole"):
            answer = client.assume_role(RoleArn=role, RoleSessionName=session, DurationSeconds=_SESSION_SECONDS)
        return _credential(answer["Credentials"])

    def user_session_create(self, credential: str) -> str:
        """GetSessionToken with the credential, for an hour."""
        client = self._client("sts", _parse(credential))
        with _asking("sts:GetSessionToken"):
            answer = client.get_session_token(DurationSeconds=_SESSION_SECONDS)
        return _credential(answer["Credentials"])

    @property
    def is_stand_in(self) -> bool:
        """Not AWS itself."""
        return self._endpoint_url is not None

    def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """Any call as ourselves, by boto3's name for it (`list_roles`), for what has a file of its own."""
        name = f"{service}:{''.join(word.title() for word in operation.split('_'))}"
        with _asking(name):
            return dict(getattr(self._own_client(service), operation)(**request))

    @cached_property
    def _own(self) -> dict[str, str]:
        if self._credentials_file is None:
            return {}
        try:
            return _parse(self._credentials_file.read_text())
        except OSError as error:
            raise InvalidInput(
                f"{self._credentials_file}: {error.strerror}", hint="aws.credentials_file must hold Clawback's own key"
            ) from None
        except InvalidInput as error:
            raise InvalidInput(f"{self._credentials_file}: {error.message}", hint=error.hint) from None

    @cached_property
    def _iam(self) -> Any:
        return self._own_client("iam")

    @cached_property
    def _sts(self) -> Any:
        return self._own_client("sts")

    def _own_client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._client(service, self._own)
        return self._clients[service]

    def _client(self, service: str, credential: dict[str, str]) -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": 1},
            max_pool_connections=16,
            proxies={} if self._endpoint_url else None,  # a stand-in is next door; the environment's proxy is not
        )
        with self._lock:  # making clients, unlike using them, is not thread-safe
            return self._session.client(
                service,
                endpoint_url=self._endpoint_url,
                config=config,
                aws_access_key_id=credential.get("access_key_id"),
                aws_secret_access_key=credential.get("secret_access_key"),
                aws_session_token=credential.get("session_token"),
            )

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.Session(region_name=self._region)


def _parse(credential: str) -> dict[str, str]:
    try:
        raw = json.loads(credential)
        parsed = {"access_key_id": raw["access_key_id"], "secret_access_key": raw["secret_access_key"]}
        if raw.get("session_token"):
            parsed["session_token"] = raw["session_token"]
    except (ValueError, KeyError, TypeError, AttributeError):
        parsed = {}
    if not parsed or not all(isinstance(part, str) and part for part in parsed.values()):
        raise InvalidInput(
            "not an AWS credential", hint='JSON with "access_key_id", "secret_access_key", for sessions "session_token"'
        )
    return parsed


def _credential(issued: dict[str, Any]) -> str:
    return json.dumps(
        {
            "access_key_id": issued["AccessKeyId"],
            "secret_access_key": issued["SecretAccessKey"],
            "session_token": issued["SessionToken"],
            "expires": issued["Expiration"].isoformat(),
        }
    )


def _role(role: str) -> str:
    """`arn:aws:iam::1:role/path/NAME` and `role/NAME` → NAME."""
    return role.rpartition("/")[2]


def _deny_before(before: str) -> str:
    statement = {
        "Sid": "ClawbackRefuseOlderSessions",
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": before}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _probe(operation: str, call: Any) -> tuple[bool, str]:
    from botocore.exceptions import ClientError

    with _asking(operation):
        try:
            return True, f"{operation}: {call()}"
        except ClientError as error:
            code, message = _said(error)
            if code not in _REFUSALS:
                raise
            return False, f"{operation}: {code}: {message}"


def _said(error: Any) -> tuple[str, str]:
    said = error.response.get("Error", {})
    return str(said.get("Code", "")), str(said.get("Message", ""))[:300]


@contextmanager
def _asking(operation: str, *, absent_is_done: bool = False) -> Iterator[None]:
    """Turn what botocore raises into ours. `from None`: its tracebacks hold signed requests."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        code, message = _said(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in {"NoSuchEntity", "NoSuchEntityException"}:
            if absent_is_done:
                return
            raise NotFound(f"AWS {operation}: {message}") from None
        if status >= 500 or code in _TRANSIENT:
            raise Unreachable(
                f"AWS cannot serve {operation} now ({code or status})", hint="`clawback resume` tries again"
            ) from None
        if code in _REFUSALS:
            raise Refused(
                f"AWS refused {operation}: {code}: {message}",
                hint="docs/permissions.md lists what Clawback's own identity needs",
            ) from None
        raise ClawbackError(f"AWS rejected {operation}: {code}: {message}") from None
    except (HTTPClientError, NoConnection) as error:
        raise Unreachable(
            f"AWS did not answer {operation} ({type(error).__name__})",
            hint="check the network and aws.endpoint_url; `clawback resume` tries again",
        ) from None
    except NoCredentialsError:
        raise Unreachable(
            f"no AWS credentials of our own for {operation}", hint="set aws.credentials_file, or boto3's environment"
        ) from None
    except (ResponseParserError, *_NO_ANSWER) as error:
        # Whatever speaks there, its yes would be worth nothing either.
        raise Unreachable(
            f"AWS answered {operation} with what is no answer to it ({type(error).__name__})",
            hint="check aws.endpoint_url and what is in between; `clawback resume` tries again",
        ) from None
    except BotoCoreError as error:
        raise ClawbackError(f"AWS {operation} could not be asked ({type(error).__name__})") from None
