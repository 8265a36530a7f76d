"""What an agent was launched with, kept for a relaunch, and the secrets it is given, read at the last moment."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.errors import InvalidInput, NotFound, Refused
from clawback.model import CredentialRef, LaunchSpec

__all__ = ["Specs", "check_name", "read_secrets"]

_SPEC = TypeAdapter(LaunchSpec)
_REF = TypeAdapter(CredentialRef)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"v-[0-9a-f]{1,64}/value")
_MOST_BYTES = 1 << 20
_log = structlog.get_logger()


def check_name(agent: str) -> str:
    """The id, if it can be a file's, a cgroup's and a telemetry record's name. `InvalidInput` otherwise."""
    if not _NAME.fullmatch(agent):
        raise InvalidInput("agent: not a name", hint="letters, digits, dots and dashes, at most 63 of them")
    return agent


class Specs:
    """`STATE/agents/AGENT/spec.json`, mode 0600: it may carry an environment, never a secret from the store."""

    def __init__(self, agents: Path) -> None:
        self._agents = agents

    def write(self, spec: LaunchSpec) -> None:
        """Keep it, durably."""
        folder = self._agents / check_name(spec.agent)
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / ".spec.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(_SPEC.dump_json(spec))
            file.flush()
            os.fsync(fd)
        new.rename(folder / "spec.json")

    def read(self, agent: str) -> LaunchSpec | None:
        """What the agent was last launched with; None where that is not known or cannot be read."""
        path = self._agents / check_name(agent) / "spec.json"
        try:
            return _SPEC.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            _log.error("launch record unreadable", path=str(path))
            return None


def read_secrets(store: Path, spec: LaunchSpec) -> tuple[dict[str, str], tuple[CredentialRef, ...]]:
    """Name → the value that is current in the store now, and what identifies each of them.

    A value that was replaced since the spec was written has another identity than the spec's; how it is given is the
    spec's to say. `NotFound` where one of
    the spec's credentials has no value.
    """
    values: dict[str, str] = {}
    refs: list[CredentialRef] = []
    for ref in spec.credentials:
        if not _SECRET.fullmatch(ref.name):
            raise InvalidInput("credentials: a name that cannot be a file's", hint="letters, digits, dots and dashes")
        try:
            home = _open_current(store / spec.agent / ref.name)
        except FileNotFoundError:
            raise NotFound(
                f"{spec.agent} has no value for the credential {ref.name!r}",
                hint=f"clawback secret put {spec.agent} {ref.name}",
            ) from None
        try:
            values[ref.name] = _text(home, "value", ref.name)
            stored = _REF.validate_json(_text(home, "ref.json", ref.name))
            refs.append(replace(stored, delivery=ref.delivery, variable=ref.variable, hosts=ref.hosts))
        except (ValidationError, FileNotFoundError):
            raise InvalidInput(f"the credential {ref.name!r} has no sound ref.json", hint="put it anew") from None
        finally:
            os.close(home)
    return values, tuple(refs)


def _open_current(home: Path) -> int:
    """The folder of the version that the store's link `current` names (`v-HEX/value`), and nothing that lies elsewhere.

    The store may belong to a user with less than the core's rights: a link that led out of it would have the core hand
    any file of the host to an agent.
    """
    target = str((home / "current").readlink())
    if not _VERSION.fullmatch(target):
        raise Refused(f"{home / 'current'} does not name a version in the store", hint="put the credential anew")
    return os.open(home / target.partition("/")[0], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _text(folder: int, file: str, name: str) -> str:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    with os.fdopen(fd, "rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidInput(f"the credential {name!r} is larger than {_MOST_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"the credential {name!r} is not UTF-8 text") from None
