"""connector.deny: a connector is open again, or was never closed."""

from __future__ import annotations

from lies.orders import ordered

from clawback.actions.connector_deny import ACTION

CASE = ordered(ACTION, host="crm.example.com")
