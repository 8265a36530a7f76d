"""The `clawback` command. One file for each group of commands; `clawback.cli.app` holds what they share."""

from clawback.cli import agents, audit, checks, drill, escalations, incidents, parts, policies
from clawback.cli.app import main

__all__ = ["agents", "audit", "checks", "drill", "escalations", "incidents", "main", "parts", "policies"]
