"""What a version allows beyond another is found by its rules: a narrower or reworded version allows no more."""

from __future__ import annotations

import pytest

from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.width import wider

GOOD = """\
networkPolicy:
  name: test
  egress:
    allow:
      - {name: api, domain: api.example.com, ports: [443], methods: [GET, POST], paths: ["/v1/*"]}
      - {name: files, domain: "*.files.example.com"}
    deny:
      - {name: payroll, domain: api.example.com, paths: ["/v1/payroll"]}
"""


def lines(text: str, good: str = GOOD) -> tuple[str, ...]:
    return wider(load(text, where="now"), load(good, where="good"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("methods: [GET, POST]", "methods: [GET]"),
        ("name: api,", "name: another-name,"),
        ('domain: "*.files.example.com"', "domain: eu.files.example.com"),
        ('domain: "*.files.example.com"', 'domain: "*.eu.files.example.com"'),
        ('paths: ["/v1/payroll"]', 'paths: ["/v1/payroll", "/v1/more"]'),
        ('domain: api.example.com, paths: ["/v1/payroll"]', "domain: api.example.com"),
    ],
)
def test_no_wider(old: str, new: str) -> None:
    assert old in GOOD
    assert lines(GOOD.replace(old, new)) == ()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("methods: [GET, POST]", "methods: [GET, DELETE]", "allow api: api.example.com"),
        (', paths: ["/v1/*"]}', "}", "allow api"),
        ("ports: [443]", "ports: [443, 22]", "ports 443, 22"),
        ('"*.files.example.com"', '"*.example.com"', "allow files: *.example.com"),
        ('"*.files.example.com"', "files.example.com", "allow files: files.example.com"),
        ('paths: ["/v1/payroll"]', 'paths: ["/v1/other"]', "no longer denied: payroll"),
    ],
)
def test_wider(old: str, new: str, says: str) -> None:
    assert old in GOOD
    [line] = lines(GOOD.replace(old, new))
    assert says in line


def test_the_sandbox_too() -> None:
    form = (
        "apiVersion: openshell.nvidia.com/v1\nkind: SandboxPolicy\nmetadata: {name: test}\n"
        "spec:\n  isolation: {network: restricted, filesystem: FILES, syscalls: minimal}\n"
    )
    now, good = form.replace("FILES", "read-write"), form.replace("FILES", "read-only")
    assert lines(now, good) == ("filesystem: read-write",)
    assert lines(good, now) == ()


def test_many_are_cut_and_counted() -> None:
    rules = "".join(f"      - {{name: n{n}, domain: h{n}.example.org}}\n" for n in range(100))
    said = lines(f"networkPolicy:\n  name: test\n  egress:\n    allow:\n{rules}")
    assert len(said) == 32
    assert said[-1] == "and 70 more"
