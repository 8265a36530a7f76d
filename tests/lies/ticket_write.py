"""ticket.write: the ticket is deleted, changed, or replaced by another's."""

from __future__ import annotations

import shutil

from lies.case import Case, Lie

from clawback.actions.ticket_write import ACTION


def _path(scene, suffix=".md"):
    return scene.folder / "tickets" / f"{scene.incident_id}{suffix}"


def _no_folder(scene, _outcome):
    shutil.rmtree(scene.folder / "tickets")
    (scene.folder / "tickets").write_text("a file where the folder was")


CASE = Case(
    action=ACTION,
    scene="desk",
    params=lambda _: {"stage": "opened"},
    holds=lambda scene, _: (
        _path(scene).is_file() and scene.incident_id in _path(scene).read_text() and _path(scene, ".json").is_file()
    ),
    lies=(
        Lie(what="the ticket is deleted", behind=lambda scene, _: _path(scene).unlink()),
        Lie(what="the form for Jira is deleted", behind=lambda scene, _: _path(scene, ".json").unlink()),
        Lie(what="the ticket is closed as harmless", behind=lambda scene, _: _path(scene).write_text("harmless\n")),
        Lie(
            what="the folder is none",
            behind=_no_folder,
            mend=lambda scene: (scene.folder / "tickets").unlink(),
        ),
    ),
    no_api="tickets are files on this disk",
)
