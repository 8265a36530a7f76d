"""The catalogue loads what is whole, and names the file and key of what is not."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clawback import catalog
from clawback.errors import InvalidInput

ACTION = """
from clawback.action import Action, Params, Plan, Reversibility, Verification
from clawback.model import Enforcement, Phase
class P(Params):
    x: str = ""
def revert(context, params, captured): ...
def verify_reverted(context, params, captured): ...
ACTION = Action(id="x.do", summary="Do.", phase=Phase.CONTAIN, reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:x"}), scope="one x", openc2="set", params=P, key=lambda p: p.x,
    plan=lambda c, p: Plan(changes=()), capture=lambda c, p: {}, apply=lambda c, p, r: {},
    verify=lambda c, p, r, o: None, revert=revert, verify_reverted=verify_reverted)
"""
DETECTOR = """
from clawback.detector import detector
from clawback.model import FileActivity, Severity
@detector(id="d.one", title="t", reads={FileActivity}, severity=Severity.HIGH, technique="T1")
def DETECTOR(event, memory): ...
"""
PLAYBOOK = """
from clawback.playbook import playbook
@playbook(id="book", title="t", answers={"d.one"}, runbook="book")
def PLAYBOOK(incident, respond): ...
"""
RUNBOOK = """---
title: T
playbook: book
detectors: [d.one]
drill: drill-one
---
# T
## Meaning
## Impact
## Diagnosis
## Mitigation
## Restore
"""
WHOLE = {
    "actions/do.py": ACTION,
    "detectors/one.py": DETECTOR,
    "playbooks/book.py": PLAYBOOK,
    "runbooks/book.md": RUNBOOK,
}


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., catalog.Catalog]]:
    package = f"units_{tmp_path.name}".replace("-", "_")
    root = tmp_path / package
    monkeypatch.syspath_prepend(str(tmp_path))

    def write_and_read(**changes: str) -> catalog.Catalog:
        files = WHOLE | {
            name.replace("__", "/").replace("_py", ".py").replace("_md", ".md"): text for name, text in changes.items()
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(textwrap.dedent(text))
        return catalog.read(root, package)

    yield write_and_read
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


def test_a_whole_set(read: Callable[..., catalog.Catalog]) -> None:
    units = read()
    assert list(units.actions) == ["x.do"]
    assert list(units.detectors) == ["d.one"]
    assert units.runbooks["book"].drill == "drill-one"
    assert units.answering("d.one") is units.playbooks["book"]
    assert units.answering("other") is None
    assert units.files["actions", "x.do"].name == "do.py"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("actions/do.py", "revert=revert, verify_reverted=verify_reverted", "", "do.py: revert: is missing"),
        ("actions/do.py", ", verify_reverted=verify_reverted", "", "do.py: verify_reverted: is missing"),
        ("actions/do.py", "Reversibility.REVERSIBLE", "Reversibility.IRREVERSIBLE", "do.py: reversibility"),
        ("actions/do.py", "Reversibility.REVERSIBLE", "Reversibility.COMPENSABLE, reflex=True", "do.py: reflex"),
        ("actions/do.py", 'scope="one x"', 'scope=" "', "do.py: scope"),
        ("actions/do.py", 'frozenset({"core:x"})', "frozenset()", "do.py: needs"),
        ("actions/do.py", 'frozenset({"core:x"})', 'frozenset({"core"})', "do.py: needs"),
        ("actions/do.py", 'id="x.do"', 'id="X do"', "do.py: id"),
        ("actions/do.py", "params=P,", "params=dict,", "do.py: params"),
        ("actions/do.py", "ACTION =", "OTHER =", "do.py: ACTION: is missing"),
        ("actions/do.py", "ACTION = Action(", "ACTION = dict(", "do.py: ACTION: is no Action"),
        ("actions/do.py", "needs=", "nonsense=1, needs=", "do.py: does not import: TypeError"),
        ("detectors/one.py", 'id="d.one"', 'id="d.two"', "book.py: answers: d.one is no detector"),
        ("playbooks/book.py", 'answers={"d.one"}', "answers=set()", "one.py: id: no playbook answers d.one"),
        ("playbooks/book.py", 'runbook="book"', 'runbook="none"', "book.py: runbook"),
        ("runbooks/book.md", "## Impact\n", "", "book.md: ## Impact is missing"),
        ("runbooks/book.md", "## Impact\n## Diagnosis", "## Diagnosis\n## Impact", "book.md: the headings"),
        ("runbooks/book.md", "drill: drill-one\n", "", "book.md: drill: is missing"),
        ("runbooks/book.md", "playbook: book", "playbook: other", "book.md: playbook"),
        ("runbooks/book.md", "[d.one]", "[d.one, d.two]", "book.md: detectors: d.two"),
        ("runbooks/book.md", "[d.one]", "[d.one", "book.md:"),
        ("runbooks/book.md", "---\ntitle", "title", "book.md:1: no front matter"),
    ],
)
def test_what_is_not_whole_is_refused(
    read: Callable[..., catalog.Catalog], file: str, old: str, new: str, says: str
) -> None:
    assert old in WHOLE[file]
    key = file.replace("/", "__").replace(".py", "_py").replace(".md", "_md")
    with pytest.raises(InvalidInput) as caught:
        read(**{key: WHOLE[file].replace(old, new)})
    assert says in caught.value.message
    assert caught.value.hint


def test_an_id_is_taken_once(read: Callable[..., catalog.Catalog]) -> None:
    with pytest.raises(InvalidInput, match=r"zz\.py: id: x\.do is already taken by do\.py"):
        read(actions__zz_py=ACTION)


def test_helpers_are_no_units(read: Callable[..., catalog.Catalog]) -> None:
    assert list(read(actions___helper_py="x = 1").actions) == ["x.do"]


def test_the_installed_catalogue_is_whole_and_light() -> None:
    code = (
        "import sys, json; from clawback import catalog; units = catalog.load();"
        "heavy = [name for name in ('prefect', 'boto3', 'botocore', 'hvac', 'sqlalchemy') if name in sys.modules];"
        "print(json.dumps([len(units.actions), len(units.detectors), len(units.playbooks), heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    actions, detectors, playbooks, heavy = json.loads(done.stdout)
    assert actions
    assert detectors
    assert playbooks
    assert heavy == []


def test_every_runbooks_drill_exists() -> None:
    drills = Path(__file__).parents[1] / "tabletop"
    for runbook in catalog.load().runbooks.values():
        assert (drills / runbook.drill / "drill.yaml").is_file(), f"{runbook.path}: drill: {runbook.drill}"


def test_the_ring_is_closed_by_drills_that_rehearse_what_they_are_named_for() -> None:
    from clawback.drills import find

    units = catalog.load()
    drills = {drill.name: drill for drill in find(Path(__file__).parents[1] / "tabletop")}
    assert {book.runbook for book in units.playbooks.values()} == units.runbooks.keys()
    for runbook in units.runbooks.values():
        drill = drills[runbook.drill]
        assert drill.playbook == runbook.playbook, drill.name
        assert set(drill.expect.findings) & units.detectors.keys() == set(drill.expect.findings), drill.name
        assert drill.expect.receipts.keys() <= units.actions.keys(), drill.name
    assert drills.keys() == {runbook.drill for runbook in units.runbooks.values()}
