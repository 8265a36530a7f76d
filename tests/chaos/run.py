"""Chaos: `python tests/chaos/run.py --kills 1000 [--seed N] [--only SEED]`. The last line counts; it names what failed.

Each seed is one trial, the same whenever it is run: which playbook, which processes of its response are killed where,
which parts are down, failing, hanging, slow or lying meanwhile, whose disk is full, whose clock is wrong.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import logging
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def rooms() -> Any:
    """`chaos.plan` …, and the world in memory that the actions' tests use; returns that."""
    package = types.ModuleType("chaos")
    package.__path__ = [str(HERE)]
    sys.modules.setdefault("chaos", package)
    name = "tests_actions_memory"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE.parent / "actions" / "memory.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="go on until so many processes were killed")
    parser.add_argument("--seconds", type=float, default=0, help="or for so long")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--only", type=int, help="one seed, told about")
    parser.add_argument("--playbook", help="of this one alone")
    given = parser.parse_args(words)
    memory = rooms()

    from chaos import trial
    from chaos.plan import draw

    from clawback.catalog import load
    from clawback.journal import Journal

    logging.disable()
    catalog = load()
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder, "journal.db")
        Journal(f"sqlite:///{template}").dispose()  # its schema is made once, not a thousand times
        gc.freeze()
        like = {
            (name, detector): trial.undisturbed(name, detector, memory.MemoryWorld, catalog, template)
            for name, playbook in sorted(catalog.playbooks.items())
            if given.playbook in (None, name)
            for detector in sorted(playbook.answers)
        }
        borders = {which: one.borders for which, one in like.items()}
        for (name, detector), one in like.items():
            waits = f"; waits: {', '.join(sorted(one.waits))}" if one.waits else ""
            print(f"{name} on {detector}: {one.borders} borders{waits}", flush=True)
        began, counts, failed = time.monotonic(), Counter[str](), {}
        for seed in [given.only] if given.only is not None else itertools.count(given.seed):
            plan = draw(seed, borders)
            outcome = trial.run(plan, memory.MemoryWorld, catalog, template, like[plan.playbook, plan.detector])
            counts.update(trials=1, kills=outcome.kills, lives=outcome.lives, lies=outcome.lies)
            counts.update(f"fault {fault.kind}" for life in plan.lives for fault in life.faults)
            counts.update(disk_full=sum(bool(life.pages) for life in plan.lives))
            counts.update(clock=sum(bool(life.clock or life.step) for life in plan.lives))
            if outcome.problems:
                failed[seed] = outcome.problems
                print(
                    f"seed {seed} {plan.playbook} on {plan.detector}:", *outcome.problems[:6], sep="\n    ", flush=True
                )
            if given.only is not None:
                print(plan)
                break
            if counts["kills"] >= given.kills or (given.seconds and time.monotonic() - began > given.seconds):
                break
    said = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(counts.items()))
    print(f"chaos: {said}; {time.monotonic() - began:.0f} s; failed: {', '.join(map(str, failed)) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
