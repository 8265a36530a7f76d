"""Commands about incidents, where there is no journal: none is made, and none is called sound or empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import clawback


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("audit", "verify"),
        ("audit", "export"),
        ("incidents",),
        ("show", "INC-1"),
        ("resume",),
        ("approvals", "list"),
        ("cap", "--override", "an attack"),
        ("undo", "INC-1", "--reason", "x"),
    ],
)
def test_no_journal_is_said_and_none_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    told = clawback(tmp_path, *words)
    assert told.returncode == 4, told.stderr
    assert f"there is no journal at sqlite:///{tmp_path / 'journal.db'}" in told.stderr
    assert told.stdout == ""
    assert list(tmp_path.iterdir()) == []
