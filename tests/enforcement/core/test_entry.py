from __future__ import annotations

import os
from dataclasses import replace

import pytest

from clawback.enforcement.core.entry import Integrity


def test_integrity_names_what_changed():
    now = Integrity.read(os.getpid())
    assert now.changes(now) == ()
    assert now.changes(replace(now, seccomp="9", cgroup="/elsewhere")) == ("cgroup", "seccomp")
    assert now.changes(replace(now, namespaces=("user:[1]", *now.namespaces[1:]))) == ("user",)


def test_a_process_that_is_gone():
    with pytest.raises(OSError, match="No such"):
        Integrity.read(2**22 - 1)
