"""One AWS account by boto3: clients, our own credentials, and how AWS's answers become ours.

Nothing is retried here: a call that got no answer is `Unreachable` within two seconds, and whoever asked tries again
from the actual state. Error messages carry the operation and AWS's error code, never a request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable

__all__ = ["AwsAccount", "Throttled", "asking", "code_of", "parse_credential", "probe"]

_CONNECT_SECONDS = 1.0
_READ_SECONDS = 1.8
# IAM is eventually consistent; changes are reported to take effect within some seconds. A stand-in answers for itself.
_AWS_SETTLE_SECONDS = 5.0

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
_caller: ContextVar[dict[str, str] | None] = ContextVar("_caller", default=None)
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError)  # what reading an answer of another shape raises
_TRANSIENT = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "ServiceUnavailable"})
_ABSENT = frozenset(
    {
        "InvalidAssociationID.NotFound",
        "InvalidInstanceID.NotFound",
        "NoSuchEntity",
        "NoSuchEntityException",
    }
)


class Throttled(Unreachable):
    """It answered that it is asked too often: asking again a little later helps."""


class AwsAccount:
    """One account, by long-lived clients; any number of threads (boto3's clients are safe to share).

    region             where STS and EC2 are asked
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
        self._mine: dict[str, Any] = {}
        self._others: dict[str, Any] = {}

    def prepare(self) -> None:
        """Load the library and its service descriptions, half a second's work, before an incident waits for it.

        Contacts nobody, and fails on nothing: what is wrong with our own credentials is said when they are first used.
        """
        for service in ("iam", "sts", "s3"):
            self._of_others(service)

    @property
    def settle(self) -> float:
        """Seconds for which IAM may still honour what was before."""
        if self._settle is not None:
            return self._settle
        return 0.0 if self._endpoint_url else _AWS_SETTLE_SECONDS

    def server_time(self) -> datetime:
        """STS's clock, from its `Date` header: whole seconds, rounded down."""
        with asking("sts:GetCallerIdentity"):
            answer = self.own("sts").get_caller_identity()
        stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(stated).astimezone(UTC)
        except (TypeError, ValueError):
            raise Unreachable("STS answered without a readable Date header") from None

    @property
    def is_stand_in(self) -> bool:
        """Not AWS itself."""
        return self._endpoint_url is not None

    def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """Any call as ourselves, by boto3's name for it (`list_roles`), for what has a file of its own."""
        name = f"{service}:{''.join(word.title() for word in operation.split('_'))}"
        with asking(name):
            return dict(getattr(self.own(service), operation)(**request))

    def own(self, service: str) -> Any:
        """Our own client of a service, made once."""
        if service not in self._mine:
            self._mine[service] = self._made(service, self._session, self._own)
        return self._mine[service]

    @contextmanager
    def acting(self, service: str, credential: dict[str, str]) -> Iterator[Any]:
        """A client that asks, inside and in this thread, as whoever holds the credential (see `parse_credential`).

        One client for all of them: to make one takes as long as a dozen calls.
        """
        client = self._of_others(service)
        before = _caller.set(credential)
        try:
            yield client
        finally:
            _caller.reset(before)

    def _of_others(self, service: str) -> Any:
        if service not in self._others:
            self._others[service] = self._made(service, self._callers, {})
        return self._others[service]

    def _made(self, service: str, session: Any, credential: dict[str, str]) -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=16,
            proxies={} if self._endpoint_url else None,  # a stand-in is next door; the environment's proxy is not
        )
        with self._lock:  # making clients, unlike using them, is not thread-safe
            return session.client(
                service,
                region_name=_home(self._region) if service == "cloudtrail" else self._region,
                endpoint_url=self._endpoint_url,
                config=config,
                aws_access_key_id=credential.get("access_key_id"),
                aws_secret_access_key=credential.get("secret_access_key"),
                aws_session_token=credential.get("session_token"),
            )

    @cached_property
    def _own(self) -> dict[str, str]:
        if self._credentials_file is None:
            return {}
        try:
            return parse_credential(self._credentials_file.read_text())
        except OSError as error:
            raise InvalidInput(
                f"{self._credentials_file}: {error.strerror}", hint="aws.credentials_file must hold Clawback's own key"
            ) from None
        except InvalidInput as error:
            raise InvalidInput(f"{self._credentials_file}: {error.message}", hint=error.hint) from None

    @cached_property
    def _session(self) -> Any:
        return self._new_session()

    @cached_property
    def _callers(self) -> Any:
        """A session that has no credentials of its own, not even those of boto3's chain."""
        return self._new_session(credential_provider=_Provider())

    def _new_session(self, **components: Any) -> Any:
        import boto3
        from botocore.session import get_session

        bare = get_session()
        for name, component in {"data_loader": _descriptions(), **components}.items():
            bare.register_component(name, component)
        return boto3.Session(botocore_session=bare, region_name=self._region)


@cache
def _descriptions() -> Any:
    """Botocore's reader of its services' descriptions, which keeps what it has read: one for all sessions."""
    from botocore.session import get_session

    return get_session().get_component("data_loader")


def _of_callers() -> Any:
    """Botocore's credentials, of whoever `acting` says at each call."""
    from botocore.credentials import Credentials, ReadOnlyCredentials
    from botocore.exceptions import NoCredentialsError

    class OfCallers(Credentials):  # type: ignore[misc]  # botocore has no types
        def get_frozen_credentials(self) -> Any:
            credential = _caller.get()
            if credential is None:
                raise NoCredentialsError
            return ReadOnlyCredentials(
                credential["access_key_id"], credential["secret_access_key"], credential.get("session_token")
            )

    return OfCallers("nobody", "nobody", method="caller")


class _Provider:
    """botocore's credential provider, with one answer."""

    def load_credentials(self) -> Any:
        return _of_callers()


def _home(region: str) -> str:
    """Where CloudTrail keeps the events of IAM, which has no region."""
    if region.startswith("cn-"):
        return "cn-north-1"
    return "us-gov-west-1" if region.startswith("us-gov-") else "us-east-1"


def parse_credential(credential: str) -> dict[str, str]:
    """A credential's JSON as its parts. `InvalidInput` without its value."""
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


def probe(operation: str, call: Callable[[], str]) -> tuple[bool, str]:
    """(accepted, AWS's answer). A refusal of the credential is an answer; silence is `Unreachable`."""
    from botocore.exceptions import ClientError

    with asking(operation):
        try:
            return True, f"{operation}: {call()}"
        except ClientError as error:
            code, message = _said(error)
            if code not in _REFUSALS:
                raise
            return False, f"{operation}: {code}: {message}"


def code_of(error: Any) -> str:
    """AWS's code of a `ClientError`."""
    return _said(error)[0]


def _said(error: Any) -> tuple[str, str]:
    said = error.response.get("Error", {})
    return str(said.get("Code", "")), str(said.get("Message", ""))[:300]


@contextmanager
def asking(operation: str, *, absent_is_done: bool = False) -> Iterator[None]:
    """Turn what botocore raises into ours. `from None`: its tracebacks hold signed requests."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        code, message = _said(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _ABSENT:
            if absent_is_done:
                return
            raise NotFound(f"AWS {operation}: {message}") from None
        if status >= 500 or code in _TRANSIENT:
            raise (Throttled if code in _TRANSIENT else Unreachable)(
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
