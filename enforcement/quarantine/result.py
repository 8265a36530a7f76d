"""Results of levels, timed: `elapsed_ms` covers applying and reading back."""

from __future__ import annotations

import time

from clawback.model import Enforcement, Level, LevelResult

__all__ = ["Clock"]


class Clock:
    """Starts when it is made; makes the results of one level."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._start = time.perf_counter_ns()
        self._counts: dict[str, int] = {}

    def count(self, **numbers: int) -> None:
        """What was counted, for the result; names as `LevelResult` lists them."""
        self._counts |= numbers

    def full(self, observed: str) -> LevelResult:
        """All of the level was seen to hold."""
        return self.of(Enforcement.FULL, observed, ())

    def partial(self, observed: str, *missing: str) -> LevelResult:
        """Some of it was; `missing` names the rest."""
        return self.of(Enforcement.PARTIAL, observed, missing)

    def none(self, observed: str, *missing: str) -> LevelResult:
        """Nothing of it was."""
        return self.of(Enforcement.NONE, observed, missing)

    def judged(self, observed: str, missing: tuple[str, ...], *, anything: bool) -> LevelResult:
        """Full where nothing is missing, else partial where anything was seen to hold, else none."""
        if not missing:
            return self.full(observed)
        return self.partial(observed, *missing) if anything else self.none(observed, *missing)

    def of(self, enforcement: Enforcement, observed: str, missing: tuple[str, ...]) -> LevelResult:
        """Whatever it is, as seen elsewhere; `full`, `partial` and `none` say what each means."""
        return LevelResult(
            level=self._level,
            enforcement=enforcement,
            observed=observed,
            missing=missing,
            counts=dict(self._counts),
            elapsed_ms=(time.perf_counter_ns() - self._start) / 1e6,
            at_ns=time.time_ns(),
        )
