"""A policy's text that is edited and otherwise stays as somebody wrote it: comments, order, quotes, spacing."""

from __future__ import annotations

import difflib
import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from clawback.errors import InvalidInput

__all__ = ["Source"]

_INDENTS = ((2, 4, 2), (2, 2, 0), (4, 4, 2), (4, 6, 4))  # (mapping, sequence, offset) as people write them


class Source:
    """`documents` are ruamel's mappings: what is changed in them is changed in `render`, and nothing else is.

    `InvalidInput` for what is not YAML; whether it is a policy is the loader's matter.
    """

    def __init__(self, text: str, *, where: str) -> None:
        self._text = text
        self._where = where
        found: tuple[int, Any, str, list[Any]] | None = None
        for indents in _INDENTS:
            yaml = _yaml(indents)
            documents = self._documents(yaml)
            plain = _dump(yaml, documents)
            off = sum(line[:1] in "+-" for line in difflib.ndiff(text.splitlines(), plain.splitlines()))
            if found is None or off < found[0]:
                # Dumping may touch comments' anchors: what is edited is read anew.
                found = (off, yaml, plain, self._documents(yaml))
            if off == 0:
                break
        assert found is not None  # noqa: S101 - there are indents to try
        _, self._yaml, self._plain, self.documents = found

    def render(self) -> str:
        """The text as edited. A line that says what it said before is the very line that stood there."""
        for document in self.documents:
            _mended(document)
        before, plain = self._text.splitlines(keepends=True), self._plain.splitlines(keepends=True)
        after = _dump(self._yaml, self.documents).splitlines(keepends=True)
        if len(before) != len(plain):
            return "".join(after)
        lines: list[str] = []
        for what, low, high, new_low, new_high in difflib.SequenceMatcher(
            a=plain, b=after, autojunk=False
        ).get_opcodes():
            lines += before[low:high] if what == "equal" else after[new_low:new_high]
        return "".join(lines)

    def _documents(self, yaml: Any) -> list[Any]:
        try:
            return list(yaml.load_all(self._text))
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            raise InvalidInput(
                f"{self._where}{line}: not YAML", hint="check the indentation and quotes there"
            ) from None


def _mended(node: Any) -> None:
    """Lists and mappings that lost all they had are written as `[]` and `{}`, without the comments on what is gone: a
    comment between a key and nothing would break the text.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            made: Any = value
            if isinstance(value, (dict, list)) and not value and hasattr(made, "fa") and not made.fa.flow_style():
                made.fa.set_flow_style()
                made.ca.comment = None
                if hasattr(node, "ca"):
                    node.ca.items.pop(key, None)
            _mended(value)
    elif isinstance(node, list):
        for value in node:
            _mended(value)


def _yaml(indents: tuple[int, int, int]) -> Any:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1 << 20
    mapping, sequence, offset = indents
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    return yaml


def _dump(yaml: Any, documents: list[Any]) -> str:
    stream = io.StringIO()
    yaml.dump_all(documents, stream)
    return stream.getvalue()
