"""What the measurements came to, as a table on the screen and as a page; and on which machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import clawback
from benches import peers

__all__ = ["machine", "markdown", "show"]


def machine() -> dict[str, Any]:
    """Hardware, kernel and versions; `load` is the mean number of runnable tasks of the last minute, before."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "cgroups": "v1 and v2" if Path("/sys/fs/cgroup/unified").exists() else "v2",
        "root": os.geteuid() == 0,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "clawback": clawback.__version__,
        "prefect": importlib.metadata.version("prefect"),
    } | {name: peers.version(name) for name in peers.NAMES}


def _number(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _busy(results: dict[str, Any]) -> str:
    found = results["machine"]
    if found["load"] <= 0.5 * (found["cores"] or 1):
        return ""
    load = f"load {found['load']} on {found['cores']} cores"
    return f"The machine was busy when this began ({load}): numbers are too high."


def show(results: dict[str, Any], screen: Console) -> None:
    """Print it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("metric", "p50", "p99", "n", "unit"):
        table.add_column(column, justify="left" if column in {"metric", "unit"} else "right", no_wrap=True)
    for name, row in results["metrics"].items():
        table.add_row(name, _number(row["p50"]), _number(row["p99"]), str(row["n"]), row["unit"])
    screen.print(table)
    lines = [f"{name}: {value:.2f}" for name, value in results["ratios"].items()]
    lines += [f"note: {note}" for note in (*results["notes"], _busy(results)) if note]
    lines += [f"failed: {why}" for why in results["failed"]]
    lines.append(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    for line in lines:
        screen.print(line, soft_wrap=True, markup=False)


def markdown(results: dict[str, Any]) -> str:
    """The page: the machine, then each bench with its table and ratios, then what was not measured and why."""
    seconds = sum(one["seconds"] for one in results["benches"].values())
    lines = ["# Results", "", f"Written by `make bench` in {seconds:.0f} s. p50 is the median; n says of how many.", ""]
    lines += [_busy(results), ""] if _busy(results) else []
    lines += ["| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in results["machine"].items()]
    for name, bench in results["benches"].items():
        lines += ["", f"## {name}", "", f"{bench['about']} (`python -m benches {name}`, {bench['seconds']:.0f} s)"]
        if bench["metrics"]:
            lines += ["", "| metric | p50 | p99 | n | unit |", "|---|--:|--:|--:|---|"]
        for key in bench["metrics"]:
            row = results["metrics"][key]
            lines.append(f"| {key} | {_number(row['p50'])} | {_number(row['p99'])} | {row['n']} | {row['unit']} |")
        if bench["ratios"]:
            lines += ["", "| ratio of medians | |", "|---|--:|"]
        lines += [f"| {key} | {results['ratios'][key]:.2f} |" for key in bench["ratios"]]
    for title, which in (("Notes", "notes"), ("Not measured", "failed")):
        if results[which]:
            lines += ["", f"## {title}", "", *(f"- {one}" for one in results[which])]
    return "\n".join(lines) + "\n"
