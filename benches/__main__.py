"""Run the measurements. `python -m benches [NAME…] [-n RUNS]`; without names, all of them.

A bench is a module here with `measure(n) -> {"metrics": …, "ratios": …}`; adding one edits no other file. Numbers from
a noisy machine are for comparing within one run: ratios are against a peer measured alternately with us.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import clawback

HERE = Path(__file__).parent


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "kernel": platform.release(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "clawback": clawback.__version__,
        "root": os.geteuid() == 0,
    }


def main() -> int:
    """Measure, write, print."""
    options = argparse.ArgumentParser(prog="python -m benches")
    options.add_argument("names", nargs="*")
    options.add_argument("-n", type=int, default=100, help="runs of each (default 100)")
    chosen = options.parse_args()
    known = [found.name for found in pkgutil.iter_modules([str(HERE)])]
    benches = {name: importlib.import_module(f"benches.{name}") for name in known if not name.startswith("_")}
    benches = {name: module for name, module in benches.items() if hasattr(module, "measure")}
    unknown = set(chosen.names) - set(benches)
    if unknown:
        sys.stderr.write(f"error: no bench {', '.join(sorted(unknown))}\nhint: one of {', '.join(benches)}\n")
        return 2
    results: dict[str, Any] = {"metrics": {}, "ratios": {}, "machine": _machine(), "notes": []}
    for name in chosen.names or benches:
        sys.stderr.write(f"{name} …\n")
        found = benches[name].measure(chosen.n)
        for key in ("metrics", "ratios"):
            results[key] |= found.get(key, {})
        results["notes"] += found.get("notes", [])
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _print(results)
    return 0


def _print(results: dict[str, Any]) -> None:
    screen = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("metric", "p50", "p99", "n", "unit"):
        table.add_column(column, justify="left" if column in {"metric", "unit"} else "right")
    for name, row in results["metrics"].items():
        table.add_row(name, f"{row['p50']:,.3f}", f"{row['p99']:,.3f}", str(row["n"]), row["unit"])
    screen.print(table)
    for name, value in results["ratios"].items():
        screen.print(f"{name}: {value:.2f}")
    for note in results["notes"]:
        screen.print(f"note: {note}")
    screen.print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))


if __name__ == "__main__":
    sys.exit(main())
