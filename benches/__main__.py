"""Run the measurements. `python -m benches [NAME…] [-n RUNS] [--quick]`; without names, all of them.

A bench is a module here with `RUNS` (usual, quick) and `measure(n) -> {"metrics": …, "ratios": …, "notes": […]}`;
adding one edits no other file. Each runs in a process of its own with a time limit, three minutes or its `SECONDS`:
one that fails or hangs says so in a line, and the others go on. `results.json` is the last run's; `RESULTS.md` only a
whole one's, not `--quick`.

Numbers from a noisy machine are for comparing within one run: ratios are against a peer measured alternately with us.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benches.peers import Unable
from benches.report import machine, markdown, show

HERE = Path(__file__).parent
_SECONDS = 180.0
_CLEANING = 30.0
_ONE = "import sys; from benches.__main__ import alone; alone(sys.argv[1], int(sys.argv[2]), sys.argv[3])"


def alone(name: str, runs: int, path: str) -> None:
    """One bench, in its own process: its results, or why there are none, as JSON into a file."""
    try:
        found = importlib.import_module(f"benches.{name}").measure(runs)
    except Unable as why:
        found = {"notes": [f"{name}: {why}"]}
    except Exception as error:
        first = " ".join(str(error).split())[:300]
        found = {"failed": f"{name}: {type(error).__name__}: {first}"}
    Path(path).write_text(json.dumps(found))


def _run(name: str, runs: int) -> dict[str, Any]:
    limit = getattr(importlib.import_module(f"benches.{name}"), "SECONDS", _SECONDS)
    with tempfile.TemporaryDirectory(prefix="clawback-bench-") as folder:
        path, log = Path(folder, "found.json"), Path(folder, "log")
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _ONE, name, str(runs), str(path)], stdout=said, stderr=said, cwd=HERE.parent
            )
            try:
                process.wait(limit)
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
                _stop(process)
                if isinstance(stopped, KeyboardInterrupt):
                    raise
                return {"failed": f"{name}: not done after {limit:g} s"}
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            if "failed" in found:
                sys.stderr.write(log.read_text(errors="replace")[-2000:])
            return found
        sys.stderr.write(log.read_text(errors="replace")[-2000:])
        return {"failed": f"{name}: ended with status {process.returncode}"}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let it take away what it made; kill it only then."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_CLEANING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _known() -> dict[str, tuple[int, int]]:
    modules = [importlib.import_module(f"benches.{one.name}") for one in pkgutil.iter_modules([str(HERE)])
               if one.name != "__main__"]  # fmt: skip
    return {one.__name__.partition(".")[2]: one.RUNS for one in modules if hasattr(one, "measure")}


def main() -> int:
    """Measure, write, print; 1 if a bench failed."""
    options = argparse.ArgumentParser(prog="python -m benches")
    options.add_argument("names", nargs="*")
    options.add_argument("-n", type=int, help="runs of each, instead of each bench's own number")
    options.add_argument("--quick", action="store_true", help="a few runs of each: to see that all of them work")
    chosen = options.parse_args()
    known = _known()
    if unknown := set(chosen.names) - set(known):
        sys.stderr.write(f"error: no bench {', '.join(sorted(unknown))}\nhint: one of {', '.join(known)}\n")
        return 2
    results: dict[str, Any] = {"metrics": {}, "ratios": {}, "notes": [], "failed": [], "benches": {}}
    results["machine"] = machine()
    for name in chosen.names or known:
        runs = chosen.n or known[name][chosen.quick]
        sys.stderr.write(f"{name} …")
        sys.stderr.flush()
        began = time.monotonic()
        found = _run(name, runs)
        seconds = time.monotonic() - began
        sys.stderr.write(f" {seconds:.0f} s\n")
        for key in ("metrics", "ratios"):
            results[key] |= found.get(key, {})
        results["notes"] += found.get("notes", [])
        results["failed"] += [found["failed"]] if "failed" in found else []
        results["benches"][name] = {
            "about": (importlib.import_module(f"benches.{name}").__doc__ or "").partition("\n")[0],
            "runs": runs,
            "seconds": round(seconds, 1),
            "metrics": list(found.get("metrics", {})),
            "ratios": list(found.get("ratios", {})),
        }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    whole = not chosen.names and not chosen.quick and chosen.n is None
    if whole and os.geteuid() == 0:
        (HERE / "RESULTS.md").write_text(markdown(results))
    show(results, Console(highlight=False))
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
