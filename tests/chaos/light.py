"""Trials in a world in memory, outside the lives that are killed; the journal and the secrets are files of theirs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.outside import Fault
from memory_world.world import MemoryWorld

from clawback.action import Action
from clawback.connectors.secret_store import FileSecretStore
from clawback.journal import Journal
from clawback.playbook import Playbook
from clawback.response import Responder, Response, run_playbook
from clawback.world import World

__all__ = ["Light"]


class Light:
    """The cheapest place: some ten lives a second."""

    patience = 60.0
    missing: tuple[str, ...] = ()

    def __init__(self, actions: Mapping[str, Action[Any]]) -> None:
        self._actions = actions
        self._folder = Path(tempfile.mkdtemp(prefix="cb-chaos-"))
        self._template = self._folder / "journal.db"
        Journal(f"sqlite:///{self._template}").dispose()  # its schema is made once, not a thousand times

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        shutil.rmtree(self._folder)

    def begin(self, folder: Path, seed: int) -> Any:
        shutil.copy(self._template, folder / "journal.db")
        store = FileSecretStore(folder / "secrets")
        there = MemoryWorld(folder / "evidence", secrets=store)
        there.agent, there.own = "a", {"secrets": store}
        there.url = there.record = f"sqlite:///{folder / 'journal.db'}"
        return there

    def wrong(self, there: Any, faults: tuple[Fault, ...]) -> None:
        """What is wrong with the parts in memory is decided where they are served."""

    def end(self, there: Any) -> None:
        """The trial's folder is all there was."""

    def respond(self, there: Any, journal: Journal, world: World, playbook: Playbook, incident: str) -> None:
        response = Response(journal, world, "responder", incident, actions=self._actions)
        with journal.lock(there.agent):
            run_playbook(playbook, Responder(response))
