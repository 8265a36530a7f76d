"""Folders here are run as drills, exactly as `clawback drill run` does: all by `make drills`, else every second one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clawback.drills import find, rehearse

DRILLS = find(Path(__file__).parent)
LATER = () if os.environ.get("CLAWBACK_DRILLS") == "all" else DRILLS[1::2]
SKIP = pytest.mark.skip(reason="half a minute each: `make drills`")
CASES = [pytest.param(drill, id=drill.name, marks=(SKIP,) if drill in LATER else ()) for drill in DRILLS]


@pytest.mark.kernel
@pytest.mark.parts
@pytest.mark.slow
@pytest.mark.parametrize("drill", CASES)
def test_drill(drill, tmp_path):
    outcome = rehearse(drill, keep=tmp_path / "kept")
    assert outcome.passed, json.dumps(
        {"problems": outcome.problems, "incident": outcome.incident}, indent=1, default=str
    )
    assert Path(outcome.incident["artefacts"]["ticket_markdown"]).is_file()


def test_there_are_drills():
    assert DRILLS
