"""Reads YAML into nodes that know their file, line and key, and takes typed values from them strictly.

Nothing is guessed: a key that is unknown or stands twice, a number where text belongs, an alias or an explicit tag is
`InvalidInput` that names `file:line`, the key, and the mend. Bounds come first, so that hostile bytes cost little.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from clawback.errors import InvalidInput

__all__ = ["Item", "documents"]

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 16
MAX_EVENTS = 50_000

_TAG = "tag:yaml.org,2002:"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it: 20 times as fast


def shown(text: str) -> str:
    """A value as it may stand in a message: short, quoted, on one line."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


@dataclass(frozen=True, slots=True)
class Item:
    """One node, the file it stands in and the keys that lead to it."""

    node: yaml.Node
    where: str
    key: str

    @property
    def line(self) -> int:
        """Counted from 1."""
        mark = self.node.start_mark
        return int(mark.line) + 1 if mark else 1

    @property
    def is_text(self) -> bool:
        """Whether it is text and not a number, a list …"""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _TAG + "str"

    @property
    def is_null(self) -> bool:
        """Whether nothing is written there, or `null`."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _TAG + "null"

    def scalar(self) -> str:
        """A single value as written, empty for `null`; not a list, nor keys and values."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong(f"expected a value, found {_kind(self.node)}", hint="write one value")
        return "" if self.is_null else str(self.node.value)

    def wrong(self, what: str, *, hint: str) -> InvalidInput:
        """The error about this node."""
        key = f" {self.key}:" if self.key else ""
        return InvalidInput(f"{self.where}:{self.line}:{key} {what}", hint=hint)

    def mapping(self, known: tuple[str, ...], *, required: tuple[str, ...] = ()) -> dict[str, Item]:
        """The values by key: every key known, none twice, the required ones there."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"expected keys and values, found {_kind(self.node)}", hint=f"keys: {', '.join(known)}")
        found: dict[str, Item] = {}
        for key_node, value in self.node.value:
            here = Item(key_node, self.where, self.key)
            if not isinstance(key_node, yaml.ScalarNode):
                raise here.wrong("a key must be a plain word", hint=f"keys: {', '.join(known)}")
            name = str(key_node.value)
            if name not in known:
                close = difflib.get_close_matches(name[:80], known, n=1)
                mend = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
                raise here.wrong(f"unknown key {shown(name)}", hint=mend)
            if name in found:
                raise here.wrong(
                    f"key {name!r} stands twice, first on line {found[name].line}", hint="keep one of them"
                )
            found[name] = Item(value, self.where, f"{self.key}.{name}" if self.key else name)
        for name in required:
            if name not in found:
                raise self.wrong(f"key {name!r} is missing", hint=f"add {name!r}")
        return found

    def keys(self) -> frozenset[str]:
        """The keys there, whatever they are; none where this has no keys."""
        if not isinstance(self.node, yaml.MappingNode):
            return frozenset()
        return frozenset(str(key.value) for key, _ in self.node.value if isinstance(key, yaml.ScalarNode))

    def entries(self, *, limit: int) -> dict[str, Item]:
        """The values by key where the author chooses the keys: printable, at most 128 characters, none twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"expected keys and values, found {_kind(self.node)}", hint="write `key: value` lines")
        if len(self.node.value) > limit:
            raise self.wrong(f"{len(self.node.value)} entries, at most {limit}", hint="join or drop some")
        names = tuple(dict.fromkeys(str(key.value) for key, _ in self.node.value if isinstance(key, yaml.ScalarNode)))
        for name in names:
            if not name or len(name) > 128 or not name.isprintable():
                raise self.wrong(f"{shown(name)} is not a name", hint="1 to 128 printable characters")
        return self.mapping(names)

    def list(self, *, limit: int) -> tuple[Item, ...]:
        """The entries of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(
                f"expected a list, found {_kind(self.node)}", hint="write it as [a, b] or one `- entry` a line"
            )
        if len(self.node.value) > limit:
            raise self.wrong(f"{len(self.node.value)} entries, at most {limit}", hint="join or drop some")
        return tuple(Item(node, self.where, f"{self.key}[{at}]") for at, node in enumerate(self.node.value))

    def text(self, *, limit: int = 1024) -> str:
        """Printable text, not empty."""
        value = self._scalar("str", "text", hint="put it in quotes")
        if not value or len(value) > limit or not value.isprintable():
            raise self.wrong(
                f"expected 1 to {limit} printable characters", hint="shorten it, or drop control characters"
            )
        return value

    def one_of(self, choices: tuple[str, ...]) -> str:
        """One of some words."""
        value = self.text()
        if value not in choices:
            raise self.wrong(f"{shown(value)} is not known", hint=f"one of: {', '.join(choices)}")
        return value

    def boolean(self) -> bool:
        """`true` or `false`; YAML's other spellings are refused, as readers differ about them."""
        value = self._scalar("bool", "true or false", hint="write true or false, unquoted")
        if value not in ("true", "false"):
            raise self.wrong(f"{shown(value)} is ambiguous", hint="write true or false")
        return value == "true"

    def integer(self, low: int, high: int) -> int:
        """A decimal number within bounds."""
        value = self._scalar("int", f"a number from {low} to {high}", hint="write a decimal number, unquoted")
        if not re.fullmatch(r"[1-9][0-9]{0,19}|0", value) or not low <= int(value) <= high:
            raise self.wrong(f"{shown(value)} is not a number from {low} to {high}", hint="write a decimal number")
        return int(value)

    def number(self, high: float) -> float:
        """A decimal number, perhaps with a fraction, above zero."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag in (_TAG + "int", _TAG + "float"):
            value = str(self.node.value)
            if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value) and 0 < float(value) <= high:
                return float(value)
        raise self.wrong(f"expected a number above 0, at most {high:g}", hint="such as 2 or 0.5, unquoted")

    def _scalar(self, tag: str, what: str, *, hint: str) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong(f"expected {what}, found {_kind(self.node)}", hint=hint)
        if self.node.tag != _TAG + tag:
            raise self.wrong(f"expected {what}, found {_kind(self.node)}", hint=hint)
        return str(self.node.value)


def documents(text: str | bytes, *, where: str) -> tuple[bytes, tuple[Item, ...]]:
    """The file's bytes and its documents' roots, empty documents left out."""
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
        string = raw.decode()
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = text[:at].count("\n" if isinstance(text, str) else b"\n") + 1  # type: ignore[arg-type]  # same kind as text
        raise InvalidInput(f"{where}:{line}: not UTF-8", hint="save the file as UTF-8") from None
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"{where}: {len(raw)} bytes, at most {MAX_BYTES}", hint="split the policy")
    try:
        _bounded(string, where)
        roots = tuple(_compose(string))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = int(mark.line) + 1 if mark else 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise InvalidInput(
            f"{where}:{line}: {shown(str(problem))}", hint="check the indentation and quotes there"
        ) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise InvalidInput(f"{where}: not YAML: {type(error).__name__}", hint="write the file anew") from None
    return raw, tuple(Item(root, where, "") for root in roots if not _empty(root))


def _compose(string: str) -> Iterator[yaml.Node]:
    for node in yaml.compose_all(string, Loader=_Loader):
        if node is not None:
            yield node


def _bounded(string: str, where: str) -> None:
    """Walk the events, which cost no memory, before anything is built from them."""
    depth = 0
    for count, event in enumerate(yaml.parse(string, Loader=_Loader)):
        line = int(event.start_mark.line) + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidInput(f"{where}:{line}: anchors and aliases are not accepted", hint="write the value out")
        if getattr(event, "tag", None):
            raise InvalidInput(f"{where}:{line}: explicit tags are not accepted", hint="leave the tag out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            raise InvalidInput(f"{where}:{line}: nested too deep, or too much of it", hint="make it simpler")


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null" and node.value == ""


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "keys and values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    words = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "str": "text"}
    return words.get(node.tag.removeprefix(_TAG), node.tag.removeprefix(_TAG))
