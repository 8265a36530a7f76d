"""tool.deny: a tool may be called again, or was never closed."""

from __future__ import annotations

from lies.orders import ordered

from clawback.actions.tool_deny import ACTION

CASE = ordered(ACTION, tool="export", host="mcp.example.com")
