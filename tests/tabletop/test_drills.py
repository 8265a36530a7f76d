"""Every folder here is run as a drill, exactly as `clawback drill run` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clawback.drills import find, rehearse

DRILLS = find(Path(__file__).parent)


@pytest.mark.kernel
@pytest.mark.parts
@pytest.mark.slow
@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_drill(drill, tmp_path):
    outcome = rehearse(drill, keep=tmp_path / "kept")
    assert outcome.passed, json.dumps(
        {"problems": outcome.problems, "incident": outcome.incident}, indent=1, default=str
    )
    assert Path(outcome.incident["artefacts"]["ticket_markdown"]).is_file()


def test_there_are_drills():
    assert DRILLS
