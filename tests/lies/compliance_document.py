"""compliance.document: the document is deleted, changed, another's, or in a place where nothing can be written."""

from __future__ import annotations

import json
import shutil

from lies.case import Case, Lie

from clawback.actions.compliance_document import ACTION
from clawback.actions.routing_audit import ACTION as AUDIT

_THREE_DAYS = 72 * 3_600 * 10**9


def _path(scene):
    return scene.documents / scene.incident_id / "data-routing.json"


def _later(scene, _outcome):
    """Somebody wants more time to decide."""
    document = json.loads(_path(scene).read_text())
    document["decide_on_notification_before_ns"] += _THREE_DAYS
    _path(scene).write_text(json.dumps(document, indent=1, sort_keys=True))


def _anothers(scene, _outcome):
    _path(scene).write_text(_path(scene).read_text().replace(scene.incident_id, "INC-20200101-ANOTHE"))


def _no_folder(scene, _outcome):
    shutil.rmtree(scene.documents)
    scene.documents.write_text("a file where the folder was")


def _no_file(scene, _outcome):
    _path(scene).unlink()
    _path(scene).mkdir()


def _holds(scene, _receipt):
    if not _path(scene).is_file():
        return False
    try:
        document = json.loads(_path(scene).read_text())
    except ValueError:
        return False
    known = min(x.time_ns for x in scene.journal.incident(scene.incident_id).findings)
    return (
        document["incident"] == scene.incident_id
        and document["decide_on_notification_before_ns"] == known + _THREE_DAYS
        and document["facts"]["routing.audit"]["queries"] == 0
    )


CASE = Case(
    action=ACTION,
    scene="ledger",
    before=lambda scene: scene.must(AUDIT, agent=scene.agent),
    params=lambda _: {"kind": "data-routing"},
    holds=_holds,
    lies=(
        Lie(what="it is deleted", behind=lambda scene, _: _path(scene).unlink()),
        Lie(what="it is emptied", behind=lambda scene, _: _path(scene).write_text("")),
        Lie(what="it is garbage", behind=lambda scene, _: _path(scene).write_bytes(b"\xff\xfe\x00" * 99)),
        Lie(what="the deadline is moved", behind=_later),
        Lie(what="it is another incident's", behind=_anothers),
        Lie(what="a folder has its name", behind=_no_file, mend=lambda scene: _path(scene).rmdir()),
        Lie(what="the folder is none", behind=_no_folder, mend=lambda scene: scene.documents.unlink()),
    ),
    no_api="documents are files on this disk",
    files_only="verifying reads the file back, which no server stands between",
)
