"""Run the rogue-agent drill and print its timeline live, then the ticket's place, the record and the table of times."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clawback.drills import Outcome, load, rehearse

__all__ = ["run"]

DRILL = "rogue-agent-exfiltration"
_FIELDS = ("incident", "orchestration", "times_ms", "phases", "receipts", "artefacts")


def run(*, as_json: bool, keep: Path | None) -> int:
    """Exit status 0 only when everything was verified. With `as_json`, stdout carries one JSON object, nothing else."""
    screen = Console(stderr=as_json, highlight=False, soft_wrap=True)
    folder = keep or Path(tempfile.mkdtemp(prefix="clawback-demo-"))
    drill = load(DRILL)
    screen.print(f"[bold]{drill.title}[/bold]: everything below is real, on this machine alone\n")
    outcome = rehearse(drill, keep=folder, follow=lambda line: _show(screen, line))
    if as_json:
        chosen = {name: outcome.incident[name] for name in _FIELDS}
        sys.stdout.write(
            json.dumps(chosen | {"levels": outcome.levels(), "problems": outcome.problems}, indent=2) + "\n"
        )
    _close(screen, outcome)
    return 0 if outcome.passed else 1


def _show(screen: Console, line: dict[str, Any]) -> None:
    if "stage" in line:
        took = "" if line["ms"] is None else f"  ({line['ms']:,} ms)"
        screen.print(Text(f"  set-up  {line['stage']}{took}", style="dim"))
        return
    screen.print(
        Text.assemble(
            (f"{line['at_ms']:>10,.1f} ms  ", "cyan"),
            f"{line['phase']:14}",
            (line["what"], "bold"),
            ("  " + line["detail"] if line["detail"] else ""),
        )
    )


def _close(screen: Console, outcome: Outcome) -> None:
    record = outcome.incident
    times = Table(
        box=None, pad_edge=False, header_style="bold", title="ms since the first rogue event", title_justify="left"
    )
    times.add_column("")
    times.add_column("ms", justify="right")
    for name, value in record["times_ms"].items():
        times.add_row(name.replace("_", " "), "not observed" if value is None else f"{value:,.1f}")
    screen.print()
    screen.print(times)
    sent, received = record["upload"]["agent_sent"], record["upload"]["sink_received"]
    screen.print(f"\nthe agent's upload: {sent:,} bytes written by the agent, {received:,} reached the sink, then none")
    screen.print(Text(f"levels of containment: {outcome.levels()}"))
    for name, path in record["artefacts"].items():
        screen.print(Text(f"{name.replace('_', ' ')}: {path}"))
    screen.print(Text(f"incident record: CLAWBACK_STATE={outcome.folder} clawback show {record['incident']}"))
    if outcome.passed:
        screen.print(
            "\n[bold green]verified:[/bold green] contained, credentials refused, restored, rogue calls denied"
        )
    for problem in outcome.problems:
        screen.print(Text(f"not verified: {problem}", style="bold red"))
