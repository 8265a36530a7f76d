"""Chaos: `python tests/chaos/run.py --kills 1000 [--real] [--seed N] [--only SEED]`. The last line names what failed.

Each seed is one trial, the same whenever it is run: which playbook, which processes of its response are killed where,
which parts are down, failing, hanging, slow or lying meanwhile, whose disk is full, whose clock is wrong.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import sys
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

HERE = Path(__file__).parent
REAL_PLAYBOOKS = {"contain-rogue-agent", "credential-misuse", "hybrid-intrusion", "restore-sandbox"}
"""Those that take the most from issuers; what the others ask of a server these ask too."""


def rooms() -> None:
    """`chaos.plan` …, and the world in memory (`memory_world.world` …), by these names."""
    for name, folder in (("chaos", HERE), ("memory_world", HERE.parent / "memory_world")):
        sys.modules.setdefault(name, types.ModuleType(name)).__path__ = [str(folder)]


class Campaign:
    """Trials in one place, one seed after the other, and what came of them."""

    def __init__(self, place: Any, catalog: Any, playbook: str, *, disks: bool, real: bool) -> None:
        from chaos import trial

        self._place, self._catalog, self._disks, self._real = place, catalog, disks, real
        self.counts, self.failed, self._began = Counter[str](), [], time.monotonic()
        self._like = {
            (name, detector): trial.undisturbed(name, detector, place, catalog)
            for name, one in sorted(catalog.playbooks.items())
            if playbook in (None, name)
            for detector in sorted(one.answers)[: 1 if real else None]
            if not real or name in REAL_PLAYBOOKS
        }
        for (name, detector), one in self._like.items():
            waits = f"; waits: {', '.join(sorted(one.waits))}" if one.waits else ""
            print(f"{name} on {detector}: {one.borders} borders{waits}", flush=True)

    def run(self, seed: int) -> Any:
        from chaos import trial
        from chaos.plan import draw

        plan = draw(seed, {which: one.borders for which, one in self._like.items()}, real=self._real)
        like = self._like[plan.playbook, plan.detector]
        outcome = trial.run(plan, self._place, self._catalog, like, disks=self._disks)
        self.counts.update(trials=1, kills=outcome.kills, lives=outcome.lives, lies=outcome.lies)
        for life in plan.lives:
            self.counts.update(f"{fault.part} {fault.kind}" if self._real else fault.kind for fault in life.faults)
            self.counts.update(disk_full=bool(life.pages), clock=bool(life.clock or life.step))
        if outcome.problems:
            self.failed.append(seed)
            said = f"seed {seed} {plan.playbook} on {plan.detector}:"
            print(said, *outcome.problems[:6], plan, sep="\n    ", flush=True)
        return plan

    def over(self, kills: int, trials: int, seconds: float) -> bool:
        return (
            bool(kills and self.counts["kills"] >= kills)
            or bool(trials and self.counts["trials"] >= trials)
            or bool(seconds and time.monotonic() - self._began > seconds)
        )

    def report(self) -> None:
        said = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(self.counts.items()))
        failed = ", ".join(map(str, self.failed)) or "none"
        took = time.monotonic() - self._began
        print(f"chaos{', real servers' if self._real else ''}: {said}; {took:.0f} s; failed: {failed}", flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="go on until so many processes were killed")
    parser.add_argument("--trials", type=int, default=0, help="or for so many trials")
    parser.add_argument("--seconds", type=float, default=0, help="or for so long")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--only", type=int, help="one seed, told about")
    parser.add_argument("--playbook", help="of this one alone")
    parser.add_argument("--real", action="store_true", help="against real servers, behind proxies that spoil answers")
    given = parser.parse_args(words)
    rooms()

    from chaos.disk import own_mounts
    from chaos.light import Light
    from chaos.real import Real

    from clawback.catalog import load

    logging.disable()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    catalog = load()
    if why := own_mounts():
        print(f"disk full: by SQLite's page limit, for no disk can be mounted ({why})", flush=True)
    with Real(catalog) if given.real else Light(catalog.actions) as place:
        for said in place.missing:
            print(said, flush=True)
        gc.freeze()
        campaign = Campaign(place, catalog, given.playbook, disks=not why, real=given.real)
        if given.only is not None:
            print(campaign.run(given.only))
        else:
            for seed in itertools.count(given.seed):
                campaign.run(seed)
                if campaign.over(given.kills, given.trials, given.seconds):
                    break
        campaign.report()
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
