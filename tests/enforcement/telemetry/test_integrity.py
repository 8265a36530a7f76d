"""What a look at a process finds changed, and what it leaves out."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from clawback.enforcement.telemetry import integrity
from clawback.enforcement.telemetry.integrity import Integrity

LINE = "30 29 0:33 / {path} ro,nosuid - tmpfs {source} rw,size=4k\n"


def test_integrity_names_what_changed():
    now = Integrity.read(os.getpid())
    assert now.changes(now) == ()
    assert now.changes(replace(now, seccomp="9", cgroup="/elsewhere")) == ("cgroup", "seccomp")
    assert now.changes(replace(now, namespaces=("user:[1]", *now.namespaces[1:]))) == ("user",)
    assert now.changes(replace(now, mounts="0")) == ("mounts",)


def test_filters_may_grow_and_not_shrink():
    now = replace(Integrity.read(os.getpid()), filters=2)
    assert now.changes(replace(now, filters=3)) == ()
    assert now.changes(replace(now, filters=1)) == ("filters",)


def test_the_ladders_own_covers_are_no_change_and_others_are():
    launched = integrity._mounts(LINE.format(path="/", source="none"))
    covered = LINE.format(path="/", source="none") + LINE.format(path="/run/secrets/a", source="clawback-restrict")
    other = LINE.format(path="/", source="none") + LINE.format(path="/run/secrets/a", source="clawback-restricted")
    assert integrity._mounts(covered) == launched
    assert integrity._mounts(other) != launched
    assert integrity._mounts(LINE.format(path="/", source="none").replace("ro,", "rw,")) != launched


def test_a_file_of_the_hosts_that_was_replaced_is_no_change_and_another_in_its_place_is():
    line = "54 11 254:0 {root} /etc/ld.so.cache ro,nosuid - ext4 /dev/vda rw\n"
    launched = integrity._mounts(line.format(root="/etc/ld.so.cache"))
    assert integrity._mounts(line.format(root="/etc/ld.so.cache//deleted")) == launched
    assert integrity._mounts(line.format(root="/etc/other")) != launched


def test_a_process_that_is_gone():
    with pytest.raises(OSError, match="No such"):
        Integrity.read(2**22 - 1)


def test_every_process_has_an_owner():
    assert os.getpid() in integrity.owners()[os.geteuid()]
