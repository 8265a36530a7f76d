"""evidence.collect: a file is changed, lost, added, or the bundle is another's, or none."""

from __future__ import annotations

from lies.bundles import Anothers, tampering, whole
from lies.case import Case

from clawback.actions.evidence_collect import ACTION

_anothers = Anothers()

CASE = Case(
    action=ACTION,
    scene="host",
    before=_anothers.collect,
    params=lambda scene: scene.who,
    holds=lambda scene, receipt: whole(scene, receipt) and receipt.outcome["files"] > 3,
    lies=tampering(_anothers),
    not_looked_at="a bundle is verified when it is made, and whenever somebody reads it",
    files_only="verifying reads the bundle's files, which no server stands between",
)
