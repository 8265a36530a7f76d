"""Text that an agent may have chosen, made harmless: bounded, without controls, inert in Markdown and HTML.

Everything shown of an incident goes through here, whoever wrote it: a detector's summary may quote the agent.
"""

from __future__ import annotations

import re
import unicodedata

from clawback.log import redact_text

__all__ = ["code", "defanged", "inert", "plain", "source"]

_CUT = "… [cut]"
# What CommonMark, GFM, its mathematics or HTML give a meaning to anywhere, and what begins a block at the start of a
# line; a backslash before ASCII punctuation takes the meaning away. All else is left, so that the source is readable.
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&!]|\A(?:[-+=:]|\d{1,9}[.)](?=\s|\Z))")
_FENCE = re.compile(r"`+")
# Trackers look for these in the rendered text, after every escape is gone: written as responders defang them.
_TRACKER = ((re.compile(r"://"), "[:]//"), (re.compile(r"@"), "[at]"), (re.compile(r"(?i)\bwww\."), "www[.]"))


def _shown(character: str) -> str:
    """Make controls, bidirectional overrides, zero widths, tags, surrogates and unassigned characters visible."""
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return f"\\u{{{ord(character):x}}}"
    return " " if category == "Zs" else character


def plain(text: object, limit: int = 500) -> str:
    """One line of visible characters, redacted, at most `limit` long. Not yet safe as Markdown."""
    # Redaction first: it must see the whole text, or a secret cut in half would pass.
    line = " ".join(redact_text(str(text)).split())[: limit + 1]
    shown = line if line.isprintable() else "".join(map(_shown, line))
    return shown if len(shown) <= limit else shown[: limit - len(_CUT)] + _CUT


def source(text: object, limit: int = 200) -> str:
    """One line of a file, its spaces kept: for a code block, where nothing on a line can end it."""
    line = redact_text(str(text).expandtabs(4))[: limit + 1]
    shown = line if line.isprintable() else "".join(map(_shown, line))
    return shown if len(shown) <= limit else shown[: limit - len(_CUT)] + _CUT


def defanged(text: str) -> str:
    """Without what trackers and chats make links and mentions of, wherever they find it."""
    for pattern, instead in _TRACKER:
        text = pattern.sub(instead, text)
    return text


def inert(text: object, limit: int = 500) -> str:
    """The same as Markdown that renders as that text: no link, image, HTML, mention, heading, list or emphasis."""
    shown = defanged(plain(text, limit))
    return _SPECIAL.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", shown)


def code(text: object, limit: int = 500) -> str:
    """The same as a code span: monospace, and nothing in it can end the span."""
    shown = plain(text, limit)
    if not shown:
        return "-"
    longest = max((len(run) for run in _FENCE.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if longest else f"{fence}{shown}{fence}"
