"""Structured logging to stderr, with secrets taken out before anything is rendered.

Redaction is by two rules: a key whose name says that it holds a secret loses its value, and whatever looks like a known
kind of secret loses it wherever it stands. Neither is a licence to log secrets; both are for the day somebody does.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

__all__ = ["configure", "redact", "redact_text"]

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"(?i)(^|[_\-.])(secret|token|password|passwd|passphrase|authorization|cookie|credential_value|private_key|"
    r"secret_access_key|session_token|secret_id|api_key|apikey)($|[_\-.])"
)
# Prefixes are those that the issuers document: Vault and OpenBao tokens, AWS access keys' secrets beside a key name,
# GitHub, Slack, OpenAI-style keys, JWTs, PEM private keys and basic or bearer authorization.
_SECRET_TEXT = re.compile(
    r"""
      \b(?:hv[sbr]|s|b|r)\.[A-Za-z0-9_-]{20,}
    | \b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})
    | \bxox[abposr]-[A-Za-z0-9-]{10,}
    | \bsk-[A-Za-z0-9_-]{20,}
    | \beyJ[A-Za-z0-9_-]{10,1024}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*
    | -----BEGIN[ A-Z]*PRIVATE\ KEY-----[\s\S]*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    | (?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{12,}
    | (?i:(?:secret_?access_?key|session_?token|password|passwd|secret|token|api_?key)["']?\s*[:=]\s*["']?)
      [^\s"',;&]{6,}
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)
    """,
    re.VERBOSE,
)
_SHORTEST = 7  # `://a:b@`; whatever else it finds is longer


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    return text if len(text) < _SHORTEST else _SECRET_TEXT.sub(REDACTED, text)


def redact(value: Any, *, key: str = "") -> Any:
    """The same for any JSON-like value: by key name and by content, at every depth."""
    if key and _SECRET_KEY.search(key) and isinstance(value, (str, bytes)):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return {name: redact(item, key=str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item) for item in value]
    return value


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: redact(item, key=name) for name, item in event.items()}


def configure(*, json: bool | None = None, level: int = logging.INFO) -> None:
    """Log to stderr: JSON lines unless it is a terminal, or as said."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,  # after exceptions became text: a traceback may quote a secret
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
