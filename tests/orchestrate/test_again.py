"""An open incident is gone on with by itself: soon, more and more rarely, and never not at all."""

from __future__ import annotations

import pytest

from clawback.orchestrate.worker import _pause


@pytest.mark.parametrize(("unreached", "longest"), [(True, 30.0), (False, 900.0)], ids=["unreached", "unproved"])
def test_it_is_never_given_up_and_never_a_busy_loop(unreached: bool, longest: float) -> None:
    pauses = [_pause(tries, unreached) for tries in range(200)]
    assert pauses[0] == 0.5
    assert pauses == sorted(pauses)
    assert pauses[-1] == longest
