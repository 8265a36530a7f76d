"""Entries of the audit record as OCSF events: Entity Management (class 3004), one JSON object an entry.

The fields are those of OCSF 1.5's Entity Management; what it has no place for, the chain, is in `unmapped`.
"""

from __future__ import annotations

from typing import Any

import clawback
from clawback.journal.audit import AuditEntry

__all__ = ["to_ocsf"]

_CLASS = 3004
_CREATE, _UPDATE = 1, 3
_CREATED = frozenset({"found", "incident opened", "drill opened"})
_WRITTEN_ONCE = frozenset({"line", "vote"})


def to_ocsf(entry: AuditEntry) -> dict[str, Any]:
    """One entry; times in milliseconds, as OCSF has them."""
    made = entry.kind in _WRITTEN_ONCE or entry.what in _CREATED or entry.what.endswith((" intended", " asked"))
    made = made or (entry.kind == "override" and entry.what != "cap as configured")
    activity = _CREATE if made else _UPDATE
    return {
        "class_uid": _CLASS,
        "category_uid": _CLASS // 1000,
        "activity_id": activity,
        "type_uid": _CLASS * 100 + activity,
        "time": entry.at_ns // 1_000_000,
        "severity_id": 1,
        "metadata": {
            "version": "1.5.0",
            "product": {"name": "clawback", "vendor_name": "clawback", "version": clawback.__version__},
            "uid": f"audit/{entry.seq}",
            "sequence": entry.seq,
            "correlation_uid": entry.incident,
        },
        "entity": {"type": entry.kind, "uid": entry.ref, "name": entry.incident or entry.ref},
        "message": entry.what,
        **({"actor": {"app_name": entry.actor}} if entry.actor else {}),
        "unmapped": {"time_ns": entry.at_ns, "row_sha256": entry.digest, "entry_sha256": entry.hash},
    }
