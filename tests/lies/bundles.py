"""What bundles of evidence share: files changed behind the action's back; the core shows another's, or none."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from lies.answers import asked, yes
from lies.case import Lie
from lies.liar import Answer, Request

__all__ = ["Anothers", "shown", "tampering", "whole"]

_NOWHERE = {"folder": "/nowhere", "manifest": "manifest.json", "sha256": "0" * 64, "files": 7, "bytes": 7}


def shown(bundle: Any) -> Answer:
    """A bundle, as the core answers with one."""
    kept = {name: getattr(bundle, name) for name in ("folder", "manifest", "sha256", "files", "bytes")}
    return Answer(json.dumps({**kept, "truncated": [], "elapsed_ms": 1.0}).encode())


class Anothers:
    """The bundle of another incident, whole and sound."""

    def __init__(self) -> None:
        self.bundle: Any = None

    def collect(self, scene: Any) -> None:
        patterns = scene.world().transcripts
        self.bundle = scene.true_core.evidence(scene.agent, incident="INC-20200101-ANOTHE", transcripts=patterns)

    def __call__(self, _request: Request) -> Answer:
        return shown(self.bundle)


def _folder(outcome: Any) -> Path:
    return Path(outcome["folder"])


def _some_file(outcome: Any) -> Path:
    return next(path for path in sorted(_folder(outcome).iterdir()) if path.name != "manifest.json")


def _change(_scene: Any, outcome: Any) -> None:
    _some_file(outcome).write_bytes(_some_file(outcome).read_bytes() + b"\n")


def _rewrite(_scene: Any, outcome: Any) -> None:
    """A file and the manifest that lists it, to match."""
    _change(_scene, outcome)
    path, manifest = _some_file(outcome), _folder(outcome) / "manifest.json"
    content = json.loads(manifest.read_text())
    for entry in content["files"]:
        if entry["path"] == path.name:
            entry |= {"sha256": sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    manifest.write_text(json.dumps(content, indent=1))


def tampering(anothers: Anothers) -> tuple[Lie, ...]:
    """In every way that files can be, and the core that shows `anothers` or nothing."""
    return (
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
            answer=anothers,
        ),
    )


def whole(scene: Any, receipt: Any) -> bool:
    """Whether the bundle is this incident's, and all that its manifest lists is there as listed."""
    folder = Path(receipt.outcome["folder"])
    if folder.parent.name != scene.incident_id or not folder.is_dir():
        return False
    manifest = (folder / "manifest.json").read_bytes()
    listed = {entry["path"]: entry["sha256"] for entry in json.loads(manifest)["files"]}
    there = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    sealed = there.pop("manifest.json") == receipt.outcome["sha256"]
    return sealed and there == listed
