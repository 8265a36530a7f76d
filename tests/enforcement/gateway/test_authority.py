"""The bundle of certificates that sandboxes are shown: made anew only where it would be another."""

from __future__ import annotations

from pathlib import Path

from clawback.enforcement.gateway.authority import prepare
from clawback.enforcement.gateway.given import BUNDLE


def test_a_bundle_that_is_as_it_should_be_stays_the_file_that_sandboxes_have(tmp_path: Path) -> None:
    prepare(tmp_path, uid=None)
    bundle = tmp_path / BUNDLE
    before = bundle.stat().st_ino, bundle.read_bytes()
    assert (tmp_path / "gateway" / "ca.pem").read_bytes().strip() in before[1]
    prepare(tmp_path, uid=None)
    assert (bundle.stat().st_ino, bundle.read_bytes()) == before


def test_a_bundle_with_another_root_or_that_was_spoilt_is_made_anew(tmp_path: Path) -> None:
    prepare(tmp_path, uid=None)
    bundle = tmp_path / BUNDLE
    whole = bundle.read_bytes()
    extra = tmp_path / "extra.pem"
    extra.write_bytes((tmp_path / "gateway" / "ca.pem").read_bytes())
    prepare(tmp_path, uid=None, extra=extra)
    assert bundle.read_bytes() == whole + extra.read_bytes().strip() + b"\n"
    bundle.write_bytes(b"spoilt")
    prepare(tmp_path, uid=None)
    assert bundle.read_bytes() == whole
