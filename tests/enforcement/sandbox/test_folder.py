"""The folder of an instance: nobody sees half of it, and a spare's is not among the agents'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clawback.enforcement.sandbox.files import descriptors
from clawback.enforcement.sandbox.folder import Folder


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir()
    return path


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_it_appears_whole_and_with_its_agent_s_own_folder(tmp_path: Path, agents: Path) -> None:
    folder = Folder(tmp_path / "spares", "one")
    assert listing(agents) == set()
    folder.restrictions('{"read": []}')
    folder.publish('{"agent": "alpha"}', agents / "alpha" / "one")
    assert folder.path == agents / "alpha" / "one"
    assert (folder.path / "agent.json").read_text() == '{"agent": "alpha"}'
    assert (folder.path / "restrictions.json").read_text() == '{"read": []}'
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {0o600}
    assert listing(tmp_path / "spares") == set()


def test_it_joins_what_the_agent_has_already(tmp_path: Path, agents: Path) -> None:
    for name in ("one", "two"):
        Folder(tmp_path / "spares", name).publish("{}", agents / "alpha" / name)
    assert {path.name for path in (agents / "alpha").iterdir()} == {"one", "two"}
    assert listing(tmp_path / "spares") == set()


def test_a_core_that_swept_the_spares_away_stops_the_launch(tmp_path: Path, agents: Path) -> None:
    folder = Folder(tmp_path / "spares", "one")
    for path in sorted((tmp_path / "spares").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError):
        folder.publish("{}", agents / "alpha" / "one")
    assert not (agents / "alpha" / "one").exists()


def test_its_descriptors_follow_it(tmp_path: Path, agents: Path) -> None:
    folder = Folder(tmp_path / "spares", "one")
    folder.publish("{}", agents / "alpha" / "one")
    os.write(folder.ending, b"{}")
    os.rename(".exit.json", "exit.json", src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    assert (agents / "alpha" / "one" / "exit.json").read_text() == "{}"


def test_output_that_goes_elsewhere_leaves_no_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "spares", "one")
    folder.discard_output()
    assert not (folder.path / "output.log").exists()


def test_removing_leaves_nothing_open_or_behind(tmp_path: Path) -> None:
    before = len(descriptors())
    folder = Folder(tmp_path / "spares", "one")
    folder.remove()
    assert listing(tmp_path / "spares") == set()
    assert len(descriptors()) == before
