"""The playbook's surroundings: a real journal on disk, and the actions' world in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawback.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}")
