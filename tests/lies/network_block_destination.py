"""network.block-destination: a destination is open again, or was never closed."""

from __future__ import annotations

from lies.orders import ordered

from clawback.actions.network_block_destination import ACTION

CASE = ordered(ACTION, host="files.example.com", port=443)
