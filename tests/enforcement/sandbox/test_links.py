"""Paths in folders that agents may write: what was looked at is what is shown, or nothing is."""

from __future__ import annotations

import errno
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.kernel import paths
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import spawner as spawning
from clawback.enforcement.sandbox.plan import plan
from clawback.enforcement.sandbox.shown import Ground
from clawback.errors import ClawbackError, InvalidInput
from clawback.model import LaunchSpec


def planned(*command: str, state: Path, **more: Any) -> Any:
    spec = LaunchSpec(agent="a", command=command, policy="p", policy_version=1, policy_text="", **more)
    return plan(spec, SandboxPolicy(name="p"), secrets={}, canaries=(), ground=Ground(state=str(state)))


def test_no_component_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.close(paths.opened(str(tmp_path / "real" / "below")))
    for path in (tmp_path / "link", tmp_path / "link" / "below", Path("/proc/self/root/etc")):
        with pytest.raises(OSError) as caught:
            paths.opened(str(path))
        assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        paths.opened(str(tmp_path / "real" / "new"))
    os.close(paths.opened(str(tmp_path / "real" / "new" / "er"), make=True))
    assert (tmp_path / "real" / "new" / "er").is_dir()
    with pytest.raises(OSError):
        paths.opened(str(tmp_path / "link" / "never"), make=True)
    assert not (tmp_path / "real" / "never").exists()


@pytest.mark.parametrize("what", ["", "agents", "run", "secrets/a", "journal.db", ".hidden"])
@pytest.mark.parametrize("by_link", [False, True])
def test_the_core_s_own_is_never_shown(tmp_path: Path, what: str, by_link: bool) -> None:
    state = tmp_path / "outer" / "state"
    for name in ("agents", "run", "secrets/a", ".hidden"):
        (state / name).mkdir(parents=True)
    (state / "journal.db").touch()
    path = state / what
    if by_link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    with pytest.raises(InvalidInput, match="keeps for itself"):
        planned("true", state=state, readable=(str(path),))
    with pytest.raises(InvalidInput, match="keeps for itself"):
        planned("true", state=state, workdir=str(state.parent))


def test_what_a_launch_needs_of_the_core_s_own_is_shown_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "bundle.pem").touch()
    (tmp_path / "theirs").mkdir()
    bundle = str(tmp_path / "gateway" / "bundle.pem")
    assert (bundle, False) in planned("true", state=tmp_path, readable=(bundle,)).binds
    assert planned("true", state=tmp_path, writable=(str(tmp_path / "theirs"),)).binds
    for more in ({"writable": (bundle,)}, {"readable": (str(tmp_path / "gateway"),)}):
        with pytest.raises(InvalidInput, match="keeps for itself"):
            planned("true", state=tmp_path, **more)


def test_what_an_agent_wrote_names_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "diary").write_text("private")
    program = tmp_path / "work" / "tool"
    program.write_text(f"#!{tmp_path}/diary\n")
    shown = dict(planned(str(program), state=tmp_path / "s", writable=(str(tmp_path / "work"),)).binds)
    assert list(shown) == [str(tmp_path / "work")]
    assert str(tmp_path / "diary") in dict(planned(str(program), state=tmp_path / "s").binds), "where no agent writes"
    program.unlink()
    program.symlink_to(tmp_path / "diary")
    assert list(dict(planned(str(program), state=tmp_path / "s", writable=(str(tmp_path / "work"),)).binds)) == [
        str(tmp_path / "work")
    ]


def test_behind_a_link_that_is_shown_too_it_lies_where_that_leads(tmp_path: Path) -> None:
    (tmp_path / "all" / "v1" / "data").mkdir(parents=True)
    (tmp_path / "all" / "current").symlink_to("v1")
    job = planned(
        "true", state=tmp_path / "s", readable=(str(tmp_path / "all"),),
        writable=(str(tmp_path / "all" / "current" / "data"),),
    )  # fmt: skip
    assert dict(job.binds) == {str(tmp_path / "all"): False, str(tmp_path / "all/v1/data"): True}
    (tmp_path / "alias").symlink_to(tmp_path / "all")
    job = planned("true", state=tmp_path / "s", readable=(str(tmp_path / "alias"), str(tmp_path / "alias" / "v1")))
    assert set(dict(job.binds)) == {str(tmp_path / "alias"), str(tmp_path / "alias/v1")}
    assert job.sources == {
        str(tmp_path / "alias"): str(tmp_path / "all"),
        str(tmp_path / "alias/v1"): str(tmp_path / "all/v1"),
    }


@pytest.mark.kernel
def test_links_that_lead_where_they_led_are_shown(sandboxes: Any, state: Path) -> None:
    (state / "data" / "deep").mkdir(parents=True)
    (state / "data" / "file").write_text("x")
    (state / "link").symlink_to(state / "data")
    seen = sandboxes.ask(f'seen["names"] = sorted(os.listdir("{state}/link"))', readable=(str(state / "link"),))
    assert seen["names"] == ["deep", "file"]


@pytest.mark.kernel
@pytest.mark.parametrize("target", ["shared/sub", "shared"])
def test_a_folder_that_became_a_link_is_not_followed(
    sandboxes: Any, state: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Between the check and the mount, as another agent that may write in the folder would have it."""
    (state / "private").mkdir()
    (state / "private" / "secret").write_text("secret")
    (state / "shared" / "sub").mkdir(parents=True)
    before = (state / "private").stat()

    def exchanged(*given: Any, **more: Any) -> Any:
        job = plan(*given, **more)
        (state / target).rename(state / "away")
        (state / target).symlink_to(state / "private")
        return replace(job)

    monkeypatch.setattr(spawning, "plan", exchanged)
    with pytest.raises(ClawbackError, match=r"link|symbolic"):
        sandboxes.launch("/bin/ls", str(state / target), writable=(str(state / target),))
    after = (state / "private").stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


@pytest.mark.kernel
@pytest.mark.slow
def test_a_race_of_renames_against_launches_shows_nothing_else(sandboxes: Any, state: Path) -> None:
    (state / "private").mkdir()
    (state / "private" / "secret").write_text("secret")
    shared = state / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "sub" / "file").touch()
    (shared / "link").symlink_to(state / "private")
    sandboxes.launch("/bin/sleep", "300", agent="other", writable=(str(shared),))
    ended = threading.Event()

    def exchange() -> None:
        libc = __import__("ctypes").CDLL(None)
        names = [os.fsencode(shared / name) for name in ("sub", "link")]
        while not ended.is_set():
            libc.renameat2(-100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE

    thread = threading.Thread(target=exchange)
    thread.start()
    seen, refused = [], 0
    try:
        for number in range(12):
            script = f'seen["names"] = os.listdir("{shared}/sub") if os.path.exists("{shared}/sub") else []'
            try:
                seen += sandboxes.ask(
                    script, agent=f"b{number}", readable=(str(shared), str(shared / "sub"), str(Path(sys.executable)))
                )["names"]
            except ClawbackError:
                refused += 1
            except AssertionError:  # it saw a link that leads nowhere inside
                refused += 1
    finally:
        ended.set()
        thread.join()
    assert "secret" not in seen
    assert not set(seen) - {"file"}
    owners = {(state / "private").stat().st_uid, (state / "private" / "secret").stat().st_uid}
    assert owners == {os.geteuid()}


def test_an_agent_s_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(tmp_path / "private")
    (tmp_path / "link").symlink_to(tmp_path / "private")
    for ground in (Ground(written=(str(work),)), Ground(agents=range(os.geteuid(), os.geteuid() + 1))):
        with pytest.raises(InvalidInput, match="an agent may have made"):
            ground.resolved(str(work / "link"), "here", writable=False)
    ground = Ground(written=(str(work),))
    assert ground.resolved(str(tmp_path / "link"), "here", writable=False) == str(tmp_path / "private")


def test_from_another_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "to").symlink_to("/etc")
    os.close(paths.opened("/a/file", root=str(tmp_path)))
    with pytest.raises(OSError):
        paths.opened("/to/passwd", root=str(tmp_path))
