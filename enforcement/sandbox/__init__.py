"""Sandboxes: made by the spawner, each kept by a shim of its own, found again by the inventory."""
