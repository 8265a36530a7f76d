"""Files are given away only where they can be nothing else than they seem."""

from __future__ import annotations

import os

import pytest

from clawback.enforcement.policy.ownership import give, give_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")


def test_links_stay_whose_they_are(tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("root's")
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "plain").write_text("x")
    (folder / "hard").hardlink_to(victim)
    (folder / "soft").symlink_to(victim)
    (folder / "out").symlink_to(tmp_path)
    give_tree(folder, 1_899_999, 1_899_999)
    give(folder / "missing", 1_899_999, 1_899_999)
    assert victim.stat().st_uid == 0
    assert tmp_path.stat().st_uid == 0
    assert (folder / "inner" / "plain").stat().st_uid == 1_899_999
    assert folder.stat().st_uid == (folder / "inner").stat().st_gid == 1_899_999
