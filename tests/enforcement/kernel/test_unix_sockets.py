"""Which paths sockets are bound to, as the kernel lists them: hostile names included."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.enforcement.kernel import unix_sockets
from clawback.enforcement.quarantine import ways_out


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with blank",
        "with /slash",
        "\u2028line",
        "tab\there",
        "12345 /x",
        b"\xff\xfe".decode(errors="surrogateescape"),
    ],
)
def test_every_bound_path_is_listed_and_no_abstract_name(tmp_path, name, monkeypatch):
    monkeypatch.setattr(unix_sockets, "_listed", {})
    path = f"{tmp_path}/{name}"
    Path(path).parent.mkdir(exist_ok=True)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX),
    ):
        bound.bind(path)
        abstract.bind(f"\0abstract {tmp_path}/no-path")
        listed = unix_sockets.bound_paths()
    assert path in listed
    assert not [one for one in listed if "no-path" in one]
    assert list(listed) == sorted(listed)


PATHS = st.lists(st.lists(st.sampled_from(["a", "b", "ab", "-"]), min_size=1, max_size=4), max_size=12)


@given(
    paths=PATHS,
    mounts=st.dictionaries(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(tuple), st.booleans()),
)
def test_those_on_shared_mounts_are_those_whose_nearest_mount_is_shared(paths, mounts):
    names = sorted("/" + "/".join(parts) for parts in paths)
    tops = {"/" + "/".join(parts): shared for parts, shared in mounts.items()}
    expected = {path for path in names if ways_out._shared(path, tops)}
    found = ways_out._on_shared(names, tops)
    assert set(found) == expected
    assert len(found) == len(set(found))
