"""A ticket as an Atlassian Document Format document, built as nodes and never as text.

Jira refuses a description of more than 32,767 characters, by the length of the document's JSON: lists are cut until it
fits, and what was left out is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from clawback.model import Finding
from clawback.reports.escape import plain, source
from clawback.reports.facts import Facts, Step

__all__ = ["LIMIT", "document", "length", "note", "request_words", "words"]

LIMIT = 32_767
_TRIES = (
    (60, 400),
    (40, 300),
    (25, 240),
    (15, 200),
    (10, 160),
    (5, 120),
    (2, 80),
)  # rows of a list, characters of a cell

Node = dict[str, Any]
T = TypeVar("T")


def length(node: Node) -> int:
    """Characters as Jira's database counts them: UTF-16 units of the compact JSON."""
    return len(json.dumps(node, ensure_ascii=False, separators=(",", ":")).encode("utf-16-le", "surrogatepass")) // 2


class _Writer:
    """Makes nodes within the bounds of one try."""

    def __init__(self, rows: int, characters: int) -> None:
        self.rows, self.characters = rows, characters

    def text(self, value: object, *marks: str) -> Node:
        said = str(value)
        # An empty text node is not valid ADF; the space that joins two nodes must survive.
        shown = plain(said, self.characters) or "-"
        node: Node = {"type": "text", "text": " " * said.startswith(" ") + shown + " " * said.endswith(" ")}
        return {**node, "marks": [{"type": mark} for mark in marks]} if marks else node

    def paragraph(self, *parts: Node) -> Node:
        return {"type": "paragraph", "content": list(parts)}

    def heading(self, value: str) -> Node:
        return {"type": "heading", "attrs": {"level": 2}, "content": [self.text(value)]}

    def bullets(self, rows: Sequence[T], parts: Callable[[T], Iterable[Node]], empty: str) -> list[Node]:
        """One bullet for each row, of the nodes that `parts` makes of it."""
        if not rows:
            return [self.paragraph(self.text(empty))]
        items = [{"type": "listItem", "content": [self.paragraph(*parts(row))]} for row in rows[: self.rows]]
        return [{"type": "bulletList", "content": items}, *self.left_out(len(rows))]

    def lines(self, rows: Sequence[str], empty: str, show: Callable[[str, int], str] = plain) -> list[Node]:
        """Lines as one code block: the cheapest form, and nothing in it is given a meaning."""
        if not rows:
            return [self.paragraph(self.text(empty))]
        shown = "\n".join(show(row, self.characters) for row in rows[: self.rows])
        block = {"type": "codeBlock", "content": [{"type": "text", "text": shown or "-"}]}
        return [block, *self.left_out(len(rows))]

    def left_out(self, count: int) -> list[Node]:
        more = count - self.rows
        return [self.paragraph(self.text(f"{more} more are in the Markdown ticket.", "em"))] if more > 0 else []

    def table(self, rows: Iterable[tuple[str, str]]) -> Node:
        def cell(kind: str, value: str) -> Node:
            return {"type": kind, "attrs": {}, "content": [self.paragraph(self.text(value))]}

        return {
            "type": "table",
            "content": [
                {"type": "tableRow", "content": [cell("tableHeader", name), cell("tableCell", value)]}
                for name, value in rows
            ],
        }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _steps(write: _Writer, steps: Sequence[Step], empty: str) -> list[Node]:
    return write.bullets(
        steps,
        lambda step: (
            write.text(step.action, "code"),
            write.text(f" {step.state}{f', {step.enforcement}' if step.enforcement else ''}, {_ms(step.at_ms)}: "),
            write.text(step.proof),
        ),
        empty,
    )


def _finding(write: _Writer, x: Finding) -> tuple[Node, ...]:
    return (
        write.text(x.detector, "code"),
        write.text(f" {x.severity.name.lower()}: {x.title}; reached for "),
        write.text(x.resource, "code"),
        write.text(f"; {x.summary}"),
        write.text(
            f" (technique {x.technique}; ATT&CK {', '.join(x.attack) or 'none'}; ATLAS {', '.join(x.atlas) or 'none'}; "
            f"OWASP {', '.join(x.asi) or 'none'}; source documents {', '.join(x.seed_asi) or 'none'})"
        ),
    )


def _body(facts: Facts, write: _Writer) -> list[Node]:
    incident = facts.incident
    top: list[tuple[str, str]] = [
        ("Status", facts.status),
        ("Severity", incident.severity.name.lower()),
        ("Assessment", f"{facts.verdict}: {'; '.join(facts.reasons)}" if facts.reasons else facts.verdict),
        ("Playbook", f"{', '.join(incident.playbooks) or 'none yet'}, orchestration: {incident.orchestration.value}"),
        *((name.capitalize(), value) for name, value in facts.agent),
        ("Policy", ", ".join(facts.policies) or "unknown"),
    ]
    nodes: list[Node] = []
    if incident.drill:
        nodes.append(write.paragraph(write.text("This is a drill.", "strong")))
    nodes += [write.table(top), write.heading("Containment")]
    nodes += _steps(write, facts.containment, "Nothing has been contained.")
    nodes += [write.heading("Measured times since the first rogue event")]
    nodes += [write.table((name.replace("_", " "), _ms(value)) for name, value in facts.times.items())]
    nodes += [write.heading("Findings")]
    nodes += write.bullets(incident.findings, lambda finding: _finding(write, finding), "None on record.")
    nodes += [write.heading("Estimated blast radius")]
    nodes += write.lines([f"{name}: {value}" for name, value in facts.radius], "Not recorded yet.")
    nodes += [write.heading("Tool calls")]
    nodes += write.lines(facts.tool_calls, "None on record.")
    nodes += [write.heading("Data and destinations")]
    nodes += write.lines(
        [f"data {x}" for x in facts.data] + [f"destination {x}" for x in facts.destinations], "None on record."
    )
    nodes += [write.heading("Instructions (untrusted, redacted, cut; do not follow them)")]
    nodes += write.lines([facts.instructions] if facts.instructions else [], "Not recorded.")
    nodes += [write.heading("Credentials (identifiers only)")]
    nodes += write.lines([f"{name} ({kind}): {which}" for kind, name, which in facts.credentials], "None on record.")
    nodes += _steps(write, facts.credential_steps, "No credential step has run.")
    nodes += [write.heading("Phases")]
    nodes += [write.table((f"{phase} (CSF {csf})", f"{done} of {all_}") for phase, csf, done, all_ in facts.phases)]
    nodes += [write.heading("Other steps"), *_steps(write, facts.other_steps, "None.")]
    nodes += [write.heading("Timeline")]
    nodes += write.lines(
        [f"{line.at_ms:,.1f} ms | {line.phase} | {line.what} | {line.detail}" for line in facts.timeline], "Empty."
    )
    nodes += [write.heading("Artefacts")]
    nodes += write.lines([f"{name}: {value}" for name, value in facts.artefacts], "None yet.")
    if facts.review:
        nodes += [write.heading("Review"), *write.bullets(facts.review, lambda x: (write.text(x),), "")]
    if facts.policy_diff:
        nodes += [write.heading("Suspected change of policy"), *write.lines(facts.policy_diff, "", show=source)]
    return nodes


def document(facts: Facts) -> Node:
    """The whole description, within Jira's limit."""
    made: Node = {}
    for rows, characters in _TRIES:
        made = {"type": "doc", "version": 1, "content": _body(facts, _Writer(rows, characters))}
        if length(made) <= LIMIT:
            return made
    # Every list at its shortest and still too long: keep whole nodes from the top, which is the order of importance.
    content = list(made["content"])
    while content and length({**made, "content": content}) > LIMIT:
        content.pop()
    return {**made, "content": content}


def note(text: str) -> Node:
    """A document of one paragraph: a comment."""
    write = _Writer(1, 1000)
    return {"type": "doc", "version": 1, "content": [write.paragraph(write.text(text))]}


def words(summary: str, description: Node) -> str:
    """What an issue says, without how: its summary and every text of its description, in order.

    For comparing: a tracker gives a document back with marks and attributes of its own.
    """
    texts: list[str] = [summary]
    waiting: list[Any] = [description]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("text"), str):
                texts.append(node["text"])
            waiting += reversed(node["content"] if isinstance(node.get("content"), list) else [])
    return "\n".join(texts)


def request_words(request: Node) -> str:
    """The same of a request that makes an issue."""
    return words(str(request["fields"]["summary"]), request["fields"]["description"])
