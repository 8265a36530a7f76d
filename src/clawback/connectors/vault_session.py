"""One Vault or OpenBao server: the connection pool, our own token, and what its errors mean.

Silence, a sealed or standby server, rate limits and server faults are `Unreachable`: what was asked may or may not have
happened, and is asked again later. Values that we send are taken out of every message before it is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable

__all__ = ["CONNECT_SECONDS", "VaultSession", "at", "reasons"]

CONNECT_SECONDS = 1.0
_READ_SECONDS = 1.5
_Read = TypeVar("_Read")
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError)  # what reading an answer of another shape raises


class VaultSession:
    """Shared by the connectors of its engines; any number of threads."""

    def __init__(self, address: str, token_file: Path, *, ca_file: Path | None = None) -> None:
        self.address = address
        self._token_file = token_file
        self._ca_file = ca_file

    def asking(self, operation: str, *, hide: str = "", who: str = "us") -> AbstractContextManager[None]:
        """Turn what hvac and requests raise meanwhile into ours; `hide` is a value that was sent."""
        return _asking(operation, self.address, hide, who)

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = "", **more: Any
    ) -> dict[str, Any]:
        """One call, with our own token or with `token`: the whole answer; empty where the server sends none.

        `path` is quoted (see `at`). What hvac raises is left to the caller, who knows what it means there: it belongs
        inside `asking`.
        """
        client = self.as_(token) if token else self.ours
        answer = client.adapter.request(method, f"/v1/{path}", json=body, **more)
        return answer if isinstance(answer, dict) else {}

    def find(
        self, method: str, path: str, read: Callable[[dict[str, Any]], _Read], body: dict[str, Any] | None = None
    ) -> _Read | None:
        """What `read` makes of the `data` of one call with our own token; None where there is nothing at that path.

        It is read in here: data of another shape is no answer, and `Unreachable`.
        """
        from hvac.exceptions import InvalidPath

        with self.asking(path):
            try:
                return read(self.ask(method, path, body)["data"])
            except InvalidPath:
                return None

    @cached_property
    def _session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        # Neither the environment's proxies nor a .netrc may come between us and the secrets manager.
        session.trust_env = False
        session.verify = str(self._ca_file) if self._ca_file else True  # hvac ignores its own when given a session
        session.mount("https://", HTTPAdapter(pool_maxsize=16))
        session.mount("http://", HTTPAdapter(pool_maxsize=16))
        return session

    @cached_property
    def ours(self) -> Any:
        """A client with our own token. `InvalidInput` where its file is missing or empty."""
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise InvalidInput(
                f"{self._token_file}: {error.strerror}",
                hint="vault.token_file must hold Clawback's own token, mode 0600",
            ) from None
        if not token:
            raise InvalidInput(f"{self._token_file} is empty", hint="it must hold Clawback's own Vault token")
        return self.as_(token)

    def as_(self, token: str) -> Any:
        """A client with somebody's token, on the same connections."""
        import hvac

        return hvac.Client(self.address, token=token, session=self._session, timeout=(CONNECT_SECONDS, _READ_SECONDS))


def at(mount: str, *parts: str) -> str:
    """A path under a mount, each part quoted whole. `InvalidInput` where one is empty: it would name another path."""
    if not mount.strip("/") or not all(parts):
        raise InvalidInput(f"an empty part in the Vault path {mount}/{'/'.join(parts)}")
    return "/".join([quote(mount.strip("/")), *(quote(part, safe="") for part in parts)])


@contextmanager
def _asking(operation: str, address: str, hide: str, who: str) -> Iterator[None]:
    """Turn what hvac and requests raise into ours. `from None`: their tracebacks hold requests, and those tokens."""
    import hvac.exceptions as answers
    import requests

    try:
        yield
    except ClawbackError:
        raise
    except requests.RequestException as error:
        raise Unreachable(
            f"Vault at {address} did not answer {operation} ({type(error).__name__})",
            hint="check that it is up and reachable; `clawback resume` tries again",
        ) from None
    except _NO_ANSWER as error:
        raise Unreachable(
            f"Vault at {address} answered {operation} with what is no answer to it ({type(error).__name__})",
            hint="check vault.address and what is in between; `clawback resume` tries again",
        ) from None
    except (
        answers.VaultDown,
        answers.VaultNotInitialized,
        answers.InternalServerError,
        answers.BadGateway,
        answers.RateLimitExceeded,
        answers.UnexpectedError,
    ) as error:
        raise Unreachable(
            f"Vault at {address} cannot serve {operation} now: {reasons(error, hide)}",
            hint="a sealed server must be unsealed; `clawback resume` tries again",
        ) from None
    except (answers.Forbidden, answers.Unauthorized) as error:
        raise Refused(
            f"Vault refused {who} {operation}: {reasons(error, hide)}",
            hint=f"{who} has no right to it, or is dead"
            if hide
            else "grant Clawback's own token this path; docs/permissions.md lists what it needs",
        ) from None
    except answers.InvalidPath as error:
        raise NotFound(f"Vault has nothing at {operation}: {reasons(error, hide)}") from None
    except answers.VaultError as error:
        raise ClawbackError(f"Vault rejected {operation}: {reasons(error, hide)}") from None


def reasons(error: Any, hide: str = "") -> str:
    """What the server said, bounded, without the value that we sent."""
    listed = getattr(error, "errors", None) or []
    text = "; ".join(str(reason).strip() for reason in (listed if isinstance(listed, list) else [listed]))
    if hide:
        text = text.replace(hide, "[redacted]")
    return text[:300] or type(error).__name__
