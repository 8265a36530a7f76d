"""evidence.collect: a file is changed, lost, added, or the bundle is another's, or none."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.liar import Answer

from clawback.actions.evidence_collect import ACTION


def _folder(outcome):
    return Path(outcome["folder"])


def _some_file(outcome):
    return next(path for path in sorted(_folder(outcome).iterdir()) if path.name != "manifest.json")


def _change(_scene, outcome):
    _some_file(outcome).write_bytes(_some_file(outcome).read_bytes() + b"\n")


def _rewrite(_scene, outcome):
    """A file and the manifest that lists it, to match."""
    _change(_scene, outcome)
    path, manifest = _some_file(outcome), _folder(outcome) / "manifest.json"
    content = json.loads(manifest.read_text())
    for entry in content["files"]:
        if entry["path"] == path.name:
            entry |= {"sha256": sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    manifest.write_text(json.dumps(content, indent=1))


class _Anothers:
    """The bundle of another incident, whole and sound."""

    def __init__(self):
        self.bundle = None

    def collect(self, scene):
        self.bundle = scene.true_core.evidence(scene.agent, incident="INC-20200101-ANOTHE")

    def __call__(self, _request):
        kept = {name: getattr(self.bundle, name) for name in ("folder", "manifest", "sha256", "files", "bytes")}
        return Answer(json.dumps({**kept, "truncated": [], "elapsed_ms": 1.0}).encode())


_anothers = _Anothers()
_NOWHERE = {"folder": "/nowhere", "manifest": "manifest.json", "sha256": "0" * 64, "files": 7, "bytes": 7}


def _holds(scene, receipt):
    folder = Path(receipt.outcome["folder"])
    if folder.parent.name != scene.incident_id or not folder.is_dir():
        return False
    manifest = (folder / "manifest.json").read_bytes()
    listed = {entry["path"]: entry["sha256"] for entry in json.loads(manifest)["files"]}
    there = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    sealed = there.pop("manifest.json") == receipt.outcome["sha256"]
    return sealed and there == listed and len(listed) > 3


CASE = Case(
    action=ACTION,
    scene="host",
    before=_anothers.collect,
    params=lambda scene: scene.who,
    holds=_holds,
    lies=(
        Lie(what="a file is changed", behind=_change),
        Lie(what="a file is lost", behind=lambda _, outcome: _some_file(outcome).unlink()),
        Lie(what="a file is added", behind=lambda _, outcome: (_folder(outcome) / "more.json").write_text("[]")),
        Lie(what="file and manifest are changed to match", behind=_rewrite),
        Lie(what="all of it is lost", behind=lambda _, outcome: shutil.rmtree(_folder(outcome))),
        Lie(
            what="the core says collected and does nothing",
            part="core",
            about=asked("POST", "/evidence"),
            answer=yes({**_NOWHERE, "truncated": [], "elapsed_ms": 1.0}),
        ),
        Lie(
            what="the core shows another incident's",
            part="core",
            about=asked("POST", "/evidence"),
            answer=_anothers,
        ),
    ),
    files_only="verifying reads the bundle's files, which no server stands between",
)
