"""The runbook's commands are ones that the command line has: somebody will type them at 3 a.m."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from clawback.catalog import Runbook, load
from clawback.cli.app import app

pytestmark = pytest.mark.slow

RUNBOOKS = sorted(load().runbooks.values(), key=lambda book: book.id)


def commands(book: Runbook) -> list[str]:
    """Every indented line, and every code span, that starts with `clawback`."""
    lines = re.findall(r"^ {4,}(clawback .+)$", book.text, flags=re.MULTILINE)
    return lines + re.findall(r"`(clawback [^`]+)`", book.text)


@pytest.mark.parametrize("book", RUNBOOKS, ids=lambda book: book.id)
def test_every_command_parses(book: Runbook) -> None:
    import clawback.cli  # noqa: F401 - registers the commands

    found = commands(book)
    assert found
    for line in found:
        _, *words = shlex.split(line)
        command: Any = typer.main.get_command(app)
        context = command.make_context("clawback", [], resilient_parsing=True)
        while hasattr(command, "commands") and (words or not command.invoke_without_command):
            word = words.pop(0)
            assert word in command.commands, f"{line}: no command {word}"
            command = command.commands[word]
        options = {name for parameter in command.params for name in parameter.opts}
        assert not [word for word in words if word.startswith("--") and word not in options], line
        if words:
            numbers = ["1" if word == "VERSION" else word for word in words]
            command.make_context(command.name, numbers, parent=context)


@pytest.mark.parametrize("book", RUNBOOKS, ids=lambda book: book.id)
def test_it_answers_what_its_playbook_answers(book: Runbook) -> None:
    assert set(book.detectors) == load().playbooks[book.playbook].answers


@pytest.mark.parametrize("book", RUNBOOKS, ids=lambda book: book.id)
def test_every_action_it_names_exists(book: Runbook) -> None:
    actions = load().actions
    for name in re.findall(r"`([a-z]+\.[a-z-]+)`", book.text):
        assert name in actions or name == "evidence.collect", name
