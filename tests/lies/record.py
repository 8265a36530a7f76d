"""Scenes with a record to read: telemetry that real writers wrote, documents, and persons who answer."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lies.case import Lie
from lies.scenes import Desk, Policies

from clawback.action import Action
from clawback.config import ApprovalSettings
from clawback.connectors.documents import FileDocuments
from clawback.connectors.telemetry import FileTelemetry
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import ApprovalState, Event, Receipt, ReceiptState, Source
from clawback.response import Response
from clawback.world import World

__all__ = ["Asked", "Ledger", "Recording", "Versions", "hidden", "torn", "vanishing"]

MINUTE_NS = 60 * 1_000_000_000


class Recording:
    """What was written down about the scene's agent. The files are this scene's own, and can be lost."""

    folder: Path
    agent: str
    instance: str

    def open(self, **changes: Any) -> None:
        """Ten minutes ago, so that what is told after it has settled."""
        super().open(**{"time_ns": time.time_ns() - 10 * MINUTE_NS, "events": (), **changes})  # type: ignore[misc]

    @property
    def telemetry(self) -> Path:
        return self.folder / "telemetry"

    @property
    def documents(self) -> Path:
        return self.folder / "compliance"

    def tell(
        self, source: Source, kind: type[Any], *, minutes_ago: float = 2.0, mine: bool = True, **fields: Any
    ) -> Event:
        """Write one event as the core or the gateway would."""
        writer = TelemetryWriter(self.telemetry, source)
        about = {"agent": self.agent, "instance": self.instance} if mine else {}
        about |= {"time_ns": time.time_ns() - round(minutes_ago * MINUTE_NS)}
        try:
            event = writer.emit(kind, **{**about, **fields})
        finally:
            writer.close()
        assert event is not None
        return event

    def stream(self, source: Source) -> Path:
        return self.telemetry / f"{source.value}.jsonl"

    def read(self, world: World) -> World:
        return dataclasses.replace(
            world,
            telemetry_or_none=FileTelemetry(self.telemetry),
            documents_or_none=FileDocuments(self.documents),
        )


class Ledger(Recording, Desk):
    """Nothing but files."""

    def world(self) -> World:
        return self.read(super().world())


class Versions(Recording, Policies):
    """A real gateway's policies, and a record of what was decided by them."""

    RULE = "*.example.com"  # of the policy that is in force

    def world(self) -> World:
        return self.read(super().world())


class Asked(Desk):
    """Steps that want consent wait here, and somebody grants them."""

    def response(self, action: Action[Any] | None = None) -> Response:
        return Response(
            self.journal,
            self.world(),
            "tester",
            self.incident_id,
            actions={action.id: action} if action else None,
            approvals=ApprovalSettings(),
        )

    def step(self, action: Action[Any], **params: Any) -> Receipt:
        receipt = super().step(action, **params)
        if receipt.state is not ReceiptState.AWAITING:
            return receipt
        for one in self.journal.approvals(ApprovalState.PENDING, incident=self.incident_id):
            self.journal.answer(one.id, nonce=one.nonce, who="ann", grant=True, reason="looked", channel="test")
        return super().step(action, **params)


# -- what may happen to a stream ---------------------------------------------------------------------------------------


def _aside(scene: Any, source: Source) -> Path:
    return Path(scene.folder, f"{source.value}.aside")


def _put_back(scene: Any, source: Source) -> None:
    path = scene.stream(source)
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    _aside(scene, source).rename(path)


def _taken(what: str, source: Source, instead: Any) -> Lie:
    def behind(scene: Any, _outcome: Any) -> None:
        scene.stream(source).rename(_aside(scene, source))
        instead(scene, scene.stream(source))

    return Lie(what=f"{what} {source.value}", behind=behind, mend=lambda scene: _put_back(scene, source))


def vanishing(source: Source) -> tuple[Lie, ...]:
    """The stream is lost, emptied, not what it was, or cannot be read: by root, too, a link is not followed."""
    return (
        _taken("somebody loses", source, lambda _scene, _path: None),
        _taken("somebody empties", source, lambda _scene, path: path.touch()),
        _taken("garbage is in", source, lambda _scene, path: path.write_bytes(b"\xff{not: json}\n" * 500)),
        _taken("a pipe is in place of", source, lambda _scene, path: os.mkfifo(path)),
        _taken("a link is in place of", source, lambda _scene, path: path.symlink_to("/dev/null")),
    )


def torn(source: Source) -> Lie:
    """The last line is cut in the middle, as by a full disk."""
    return _taken(
        "somebody tears",
        source,
        lambda scene, path: path.write_bytes(_aside(scene, source).read_bytes()[:-20]),
    )


def hidden(action: Action[Any], params: Callable[[Any], dict[str, Any]], source: Source) -> Lie:
    """The stream was not there while the account was drawn, and is there again: what was drawn is of nothing."""

    def behind(scene: Any, outcome: Any) -> None:
        scene.stream(source).rename(_aside(scene, source))
        try:
            drawn = action.apply(scene.response(action).context(), action.params(**params(scene)), {})
            outcome.clear()
            outcome.update(drawn)
        finally:
            _put_back(scene, source)

    return Lie(what=f"nobody sees {source.value} while it is drawn", behind=behind)
