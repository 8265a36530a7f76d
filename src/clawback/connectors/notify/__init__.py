"""Messages to people, over whatever is configured under `notify.channels`: `clawback.world.notices.Notifier`.

A file here is a kind of channel: `write` makes the request of a notice, `took` reads the answer. What was delivered is
noted in `STATE/notices/INCIDENT/`, so that it is not sent twice; the note comes after the answer, so a crash between
the two sends it again, under the same key.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import pkgutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from clawback.config import ChannelSettings, is_private
from clawback.connectors.secret_file import read_secret
from clawback.connectors.tickets import replace
from clawback.errors import ClawbackError, InvalidInput
from clawback.reports.escape import plain
from clawback.world.notices import Delivery, Notice, Outcome

if TYPE_CHECKING:
    import httpx

__all__ = ["Channel", "Channels", "Message", "kinds"]

_TIMEOUT, _CONNECT = 3.0, 1.0
_ATTEMPTS, _TOGETHER = 3, 6.0
_MAX_ANSWER = 64 * 1024
_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request to make: body and headers; the address is the channel's own."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Channel(Protocol):
    """A module of this folder. `secret` is what `secret_file` holds, empty where the kind needs none."""

    def write(self, notice: Notice, *, key: str, secret: str, now: float) -> Message:
        """The request that carries a notice; `now` is Unix seconds."""
        ...

    def took(self, status: int, body: bytes, notice: Notice) -> bool:
        """Whether the answer is the one by which this kind is documented to accept a message."""
        ...


class _Again(Exception):
    """No answer, or one that asks to come back."""


def kinds() -> tuple[str, ...]:
    """Kinds of channel there are, as settings name them."""
    return tuple(sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__)))


def _kind(name: str) -> Channel:
    if name not in kinds():
        raise InvalidInput(f"no kind of channel {name[:40]!a}", hint=f"there are {', '.join(kinds())}")
    module: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    found: Channel = module
    return found


class Channels:
    """All configured channels. Each message is bounded in time, and they are sent side by side."""

    def __init__(self, folder: Path, settings: Mapping[str, ChannelSettings]) -> None:
        self._folder, self._settings = folder, settings

    def channels(self) -> Mapping[str, str]:
        """Name → kind."""
        return {name: channel.kind for name, channel in self._settings.items()}

    def send(self, notice: Notice, *, key: str, channels: tuple[str, ...]) -> Mapping[str, Delivery]:
        """See `Notifier.send`."""
        if not channels:
            return {}
        with ThreadPoolExecutor(min(8, len(channels))) as pool:
            done = pool.map(lambda name: self._once(notice, key, name), channels)
            return dict(zip(channels, done, strict=True))

    def _once(self, notice: Notice, key: str, name: str) -> Delivery:
        note = self._folder / notice.incident / f"{hashlib.sha256(f'{name}/{key}'.encode()).hexdigest()[:32]}.json"
        try:
            if note.is_file():
                return Delivery(outcome=Outcome.DELIVERED, answer=str(json.loads(note.read_text("utf-8"))["answer"]))
            delivery = self._deliver(notice, key, self._settings[name])
            if delivery.outcome is Outcome.DELIVERED:
                note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace(note, json.dumps({"channel": name, "key": key, "answer": delivery.answer}))
        except ClawbackError as error:
            return Delivery(outcome=Outcome.REFUSED, answer=f"{error.message}; {error.hint}")
        except (OSError, ValueError, KeyError) as error:
            return Delivery(outcome=Outcome.SILENT, answer=f"what was delivered is not known: {type(error).__name__}")
        return delivery

    def _deliver(self, notice: Notice, key: str, channel: ChannelSettings) -> Delivery:
        import stamina

        kind, url = _kind(channel.kind), _address(channel)
        secret = read_secret(channel.secret_file, "secret_file") if channel.secret_file else ""
        said = "no answer"
        try:
            for attempt in stamina.retry_context(
                on=_Again, attempts=_ATTEMPTS, timeout=_TOGETHER, wait_initial=0.2, wait_max=1.0, wait_jitter=0.2
            ):
                with attempt:
                    message = kind.write(notice, key=key, secret=secret, now=time.time())
                    status, body = _post(url, message)
                    said = f"status {status}{_shown(body, url, secret)}"
                    if status == 429 or status >= 500:
                        raise _Again(said)
        except _Again as again:
            return Delivery(outcome=Outcome.SILENT, answer=str(again))
        took = kind.took(status, body, notice)
        return Delivery(outcome=Outcome.DELIVERED if took else Outcome.REFUSED, answer=said)


def _address(channel: ChannelSettings) -> str:
    url = read_secret(channel.url_file, "url_file") if channel.url_file else channel.url or _PAGERDUTY
    if not is_private(url):
        raise InvalidInput("the channel's address is no https:// one", hint="it is a secret, and so is what is sent")
    return url


def _post(url: str, message: Message) -> tuple[int, bytes]:
    import httpx

    # httpx logs each address that it asks, and here the address is the secret.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    timeout = httpx.Timeout(_TIMEOUT, connect=_CONNECT)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, content=message.body, headers=dict(message.headers)) as answer,
        ):
            return answer.status_code, _read(answer)
    except httpx.HTTPError as error:
        raise _Again(f"no answer ({type(error).__name__})") from None  # the traceback holds the address


def _read(answer: httpx.Response) -> bytes:
    read = bytearray()
    for part in answer.iter_bytes():
        read += part[: _MAX_ANSWER - len(read)]
        if len(read) >= _MAX_ANSWER:
            break
    return bytes(read)


def _shown(body: bytes, url: str, secret: str) -> str:
    text = body.decode("utf-8", "replace")
    path = urlsplit(url).path
    for hidden in (url, path if len(path) > 1 else "", secret):  # before it is cut: half a secret would pass
        text = text.replace(hidden, "[redacted]") if hidden else text
    return f": {plain(text, 160)}" if text.strip() else ""
