"""Each action of the catalogue is lied to, in every way that its file in this folder declares, and must not believe it.

For each way: the same scene without the lie ends `verified` (or `reverted`) and is seen from outside to be so; with it,
the receipt claims nothing; once the lie has ended, going on makes it true and says so. What is done only once a step is
verified is seen by looking again.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lies.case import Case, Lie
from lies.liar import FAULTS
from lies.scenes import Scene

from clawback import actions
from clawback.action import Action
from clawback.catalog import load
from clawback.model import Phase, Receipt, ReceiptState
from clawback.response import recheck

HERE = Path(__file__).parent
ROOMS = {
    *("conftest", "test_lies", "test_drift", "case", "liar", "answers", "scenes", "ladder"),
    *("orders", "record", "fleet", "staged", "models", "recovered", "bundles"),
}
REVERTED = {ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}

_HOST = (pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow)
_MARKS = {
    "identity": (pytest.mark.parts, pytest.mark.slow),
    "issuers": (pytest.mark.parts, pytest.mark.slow),
    "policies": (pytest.mark.parts, pytest.mark.slow),
    "versions": (pytest.mark.parts, pytest.mark.slow),
    **dict.fromkeys(
        ("host", "staged", "models", "fleet", "steered"), (pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow)
    ),
    **dict.fromkeys(("desk", "ledger", "asked"), ()),
}
_ALL = os.environ.get("CLAWBACK_LIES") == "all"
_TELLING = ("garbage", "an empty object", "hanging")
_RACES = 20
_RESUMES = 3  # an action may want to be told twice, where it would delete what might be somebody's


def _cases() -> dict[str, Case]:
    found = {}
    for path in sorted(HERE.glob("*.py")):
        if path.stem not in ROOMS:
            spec = importlib.util.spec_from_file_location(f"lies_of.{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found[path.stem] = module.CASE
    return found


CASES = _cases()
Make = Callable[[str], Scene]


def _each(pick: Callable[[Case], tuple[tuple[str, Any], ...]]) -> Any:
    return [
        pytest.param(case, item, id=f"{name}-{what}".replace(" ", "_"), marks=_MARKS[case.scene])
        for name, case in CASES.items()
        for what, item in pick(case)
    ]


def _lies(case: Case, lies: tuple[Lie, ...]) -> tuple[tuple[str, Lie], ...]:
    """All of them; without `make lies`, where servers or sandboxes make each take seconds, one: by turns of the cases
    what is done behind its back and what an API says, where there are both.
    """
    if not _ALL and _MARKS[case.scene]:
        turn = _turn(case)
        lies = next((kind[:1] for kind in (_kind(lies, behind=turn), _kind(lies, behind=not turn)) if kind), ())
    return tuple((lie.what, lie) for lie in lies)


def _kind(lies: tuple[Lie, ...], *, behind: bool) -> tuple[Lie, ...]:
    return tuple(lie for lie in lies if bool(lie.behind) is behind)


def _turn(case: Case) -> bool:
    return list(CASES.values()).index(case) % 2 == 0


def _drifting(case: Case) -> tuple[Lie, ...]:
    return tuple(lie for lie in case.lies if lie.drifts)


def _useless(reads: tuple[str, ...], wanted: bool) -> tuple[tuple[str, tuple[str, str]], ...]:
    """All of them take long; without `make lies`, by turns of the cases one of those that have been believed before."""
    if _ALL:
        return tuple((f"{part} {fault}", (part, fault)) for part in reads for fault in FAULTS)
    turns = zip(sorted(reads) if wanted else (), itertools.cycle(_TELLING), strict=False)
    return tuple((f"{part} {fault}", (part, fault)) for part, fault in turns)


# -- the catalogue is covered ------------------------------------------------------------------------------------------


def test_every_action_is_lied_to() -> None:
    files = {path.stem for path in Path(actions.__path__[0]).glob("*.py") if not path.stem.startswith("_")}
    assert files - CASES.keys() == set(), "each needs tests/lies/NAME.py; see tests/lies/aws_rotate_key.py"
    assert CASES.keys() - files == set(), "no such action"
    assert {case.action.id for case in CASES.values()} <= load().actions.keys()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_each_file_must_have(case: Case) -> None:
    whys = (case.changes_nothing, case.never_undone, case.no_api, case.files_only, case.never_drifts)
    for why in (*whys, case.not_looked_at):
        assert not why or len(why) > 20, "an exemption gives its reason"
    assert case.lies, "it can be told something untrue, and must not claim what it was not shown"
    if not case.changes_nothing:
        assert case.never_undone or any(lie.behind for lie in case.lies), "an effect that is undone behind its back"
        assert case.no_api or any(lie.part for lie in case.lies), "an API that says yes and does nothing"
        assert case.no_api or case.files_only or case.reads, "a part that verifying asks in vain"
    if case.action.phase in (Phase.CONTAIN, Phase.ERADICATE) and not case.changes_nothing:
        assert (case.action.recheck is None) == bool(case.not_looked_at), "what it claims may cease to be so"
    if case.action.recheck is not None:
        assert case.never_drifts or _drifting(case), "what looking again sees"
    if case.action.revert is not None and not case.changes_nothing:
        assert case.undone is not None
        assert case.revert_lies
    for lie in (*case.lies, *case.revert_lies):
        assert bool(lie.behind) != bool(lie.part), lie.what
        assert not lie.part or (lie.about and lie.answer is not None), lie.what


# -- applying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "_"), _each(lambda _: (("", None),)))
def test_without_a_lie_it_is_verified_and_true_and_seen_when_that_ends(case: Case, _: None, scene_of: Make) -> None:
    scene, params = _begin(case, scene_of)
    receipt = scene.step(case.action, **params)
    assert receipt.state is ReceiptState.VERIFIED, receipt
    assert case.holds(scene, receipt), receipt.proof
    if case.action.recheck is not None:
        _is_looked_at_again(case, scene, params)


def _is_looked_at_again(case: Case, scene: Scene, params: Mapping[str, Any]) -> None:
    """Another scene is not made for it: what is done later is done to what was verified."""
    look = functools.partial(recheck, scene.response(case.action))
    assert look() == ()
    for part in case.reads:
        for fault in FAULTS if _ALL else ("garbage", "an empty object"):
            scene.liars[part].lie(lambda _: True, FAULTS[fault])
            assert look() == (), f"{part} {fault} is taken for drift"
            scene.honest()
    for lie in _drifting(case)[: None if _ALL else 1]:
        assert lie.behind is not None
        for _ in range(_RACES if lie.races else 1):
            lie.behind(scene, scene.journal.incident(scene.incident_id).receipts[-1].outcome)
            if drifted := look():
                break
        assert [one.state for one in drifted] == [ReceiptState.UNVERIFIED], f"{lie.what}: looking again does not see it"
        scene.honest()
        _goes_on(case, scene, params, lie)
        assert look() == ()


@pytest.mark.parametrize(("case", "lie"), _each(lambda case: _lies(case, case.lies)))
def test_a_lie_is_not_believed(case: Case, lie: Lie, scene_of: Make) -> None:
    for _ in range(_RACES if lie.races else 1):
        scene, params = _begin(case, scene_of)
        with _told(scene, lie, case.action, "apply") as (action, told):
            receipt = scene.step(action, **params)
            assert told(), "the lie was never told: this scene proves nothing"
            true = case.holds(scene, receipt)
        if lie.races and true:
            scene.close()
            continue
        break
    assert case.changes_nothing or not true, f"{lie.what}: it holds all the same; this lie proves nothing"
    assert receipt.state is not ReceiptState.VERIFIED, f"{lie.what} was believed: {receipt.proof}"
    assert receipt.proof or receipt.error
    _goes_on(case, scene, params, lie)


@pytest.mark.parametrize(("case", "useless"), _each(lambda case: _useless(case.reads, _turn(case))))
def test_where_verifying_is_shown_nothing_nothing_is_claimed(
    case: Case, useless: tuple[str, str], scene_of: Make
) -> None:
    part, fault = useless
    scene, params = _begin(case, scene_of)
    lie = Lie(what=fault, behind=lambda at, _: at.liars[part].lie(lambda _: True, FAULTS[fault]))
    with _told(scene, lie, case.action, "apply") as (action, _):
        receipt = scene.step(action, **params)
        assert scene.honest(), f"verifying asked {part} nothing"
    assert receipt.state is not ReceiptState.VERIFIED, f"{part} {fault}: {receipt.proof}"
    assert receipt.proof or receipt.error
    assert "defect" not in receipt.error, f"{part} {fault}: {receipt.error}"
    _goes_on(case, scene, params, lie)


def _goes_on(case: Case, scene: Scene, params: Mapping[str, Any], lie: Lie) -> None:
    if lie.mend is not None:
        lie.mend(scene)
    for _ in range(_RESUMES):
        receipt = scene.step(case.action, **params)
        if receipt.state is ReceiptState.VERIFIED:
            break
    assert receipt.state is ReceiptState.VERIFIED, receipt
    assert case.holds(scene, receipt), receipt.proof


# -- reverting ---------------------------------------------------------------------------------------------------------


def _revertible(case: Case) -> bool:
    return case.undone is not None


@pytest.mark.parametrize(("case", "_"), _each(lambda case: (("", None),) if _revertible(case) else ()))
def test_without_a_lie_a_revert_is_seen_and_true(case: Case, _: None, scene_of: Make) -> None:
    scene, receipt = _applied(case, scene_of)
    receipt = scene.response(case.action).revert(receipt)
    assert receipt.state is ReceiptState.REVERTED, receipt
    assert case.undone is not None
    assert case.undone(scene, receipt), receipt.proof


@pytest.mark.parametrize(("case", "lie"), _each(lambda case: _lies(case, case.revert_lies)))
def test_a_lie_about_a_revert_is_not_believed(case: Case, lie: Lie, scene_of: Make) -> None:
    assert case.undone is not None
    for _ in range(_RACES if lie.races else 1):
        scene, receipt = _applied(case, scene_of)
        with _told(scene, lie, case.action, "revert") as (action, told):
            receipt = scene.response(action).revert(receipt)
            assert told(), "the lie was never told: this scene proves nothing"
            true = case.undone(scene, receipt)
        if lie.races and true:
            scene.close()
            continue
        break
    assert not true, f"{lie.what}: it is undone all the same; this lie proves nothing"
    assert receipt.state not in REVERTED, f"{lie.what} was believed: {receipt.proof}"
    _goes_on_undoing(case, scene, receipt, lie)


@pytest.mark.parametrize(("case", "useless"), _each(lambda case: _useless(case.revert_reads, not _turn(case))))
def test_where_looking_at_a_revert_shows_nothing_nothing_is_claimed(
    case: Case, useless: tuple[str, str], scene_of: Make
) -> None:
    part, fault = useless
    scene, receipt = _applied(case, scene_of)
    lie = Lie(what=fault, behind=lambda at, _: at.liars[part].lie(lambda _: True, FAULTS[fault]))
    with _told(scene, lie, case.action, "revert") as (action, _):
        receipt = scene.response(action).revert(receipt)
        assert scene.honest(), f"looking asked {part} nothing"
    assert receipt.state not in REVERTED, f"{part} {fault}: {receipt.proof}"
    assert "defect" not in receipt.error, f"{part} {fault}: {receipt.error}"
    _goes_on_undoing(case, scene, receipt, lie)


def _goes_on_undoing(case: Case, scene: Scene, receipt: Receipt, lie: Lie) -> None:
    if lie.mend is not None:
        lie.mend(scene)
    receipt = scene.response(case.action).revert(receipt)
    assert receipt.state in REVERTED, receipt
    assert case.undone is not None
    assert case.undone(scene, receipt), receipt.proof


# ----------------------------------------------------------------------------------------------------------------------


def _begin(case: Case, scene_of: Make) -> tuple[Scene, dict[str, Any]]:
    scene = scene_of(case.scene)
    if case.before is not None:
        case.before(scene)
    return scene, case.params(scene)


def _applied(case: Case, scene_of: Make) -> tuple[Scene, Receipt]:
    scene, params = _begin(case, scene_of)
    return scene, scene.must(case.action, **params)


@contextmanager
def _told(
    scene: Scene, lie: Lie, action: Action[Any], function: str
) -> Iterator[tuple[Action[Any], Callable[[], bool]]]:
    """The action as it is made while the lie is told, and whether it was."""
    if lie.behind is None:
        told = scene.liars[lie.part].lie(lie.about or (lambda _: False), lie.answer)
        try:
            yield action, lambda: told.told > 0
        finally:
            scene.honest()
        return
    behind, whole, done = lie.behind, getattr(action, function), []

    def then(*given: Any) -> Any:
        outcome = whole(*given)
        behind(scene, outcome or {})
        done.append(True)
        return outcome

    try:
        yield dataclasses.replace(action, **{function: then}), lambda: bool(done)
    finally:
        scene.honest()
