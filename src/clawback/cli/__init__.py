"""The `clawback` command. One file for each group of commands; `clawback.cli.app` holds what they share."""

from clawback.cli import (
    agents,
    answers,
    approvals,
    audit,
    checks,
    drill,
    escalations,
    evidence,
    halts,
    incidents,
    orders,
    parts,
    policies,
    run,
    secrets,
    undo,
)
from clawback.cli.app import main

__all__ = [
    "agents",
    "answers",
    "approvals",
    "audit",
    "checks",
    "drill",
    "escalations",
    "evidence",
    "halts",
    "incidents",
    "main",
    "orders",
    "parts",
    "policies",
    "run",
    "secrets",
    "undo",
]
