"""What a lies file declares: an action, a scene to make it in, and how it is lied to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clawback.action import Action
from clawback.model import Receipt

__all__ = ["Case", "Lie"]


@dataclass(frozen=True, kw_only=True)
class Lie:
    """One sabotage, of applying or of reverting.

    behind   done behind the action's back, once its effect is there: (scene, what apply returned; of a revert nothing)
    part     or a part that lies meanwhile: what it is asked `about` it swallows and answers with `answer`
    mend     ends what would not end by itself, before the action is resumed
    drifts   done once the step is verified, it is seen by looking again (`recheck`)
    races    something in the real part mends it within moments, as the core's keeper does: seen mended, it is done anew
    """

    what: str
    behind: Callable[[Any, Mapping[str, Any]], None] | None = None
    part: str = ""
    about: Callable[[Any], bool] | None = None
    answer: Any = None
    mend: Callable[[Any], None] | None = None
    drifts: bool = False
    races: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """One action.

    scene       which scene it is made in, by the name that conftest.py knows it by
    params      of the step, once `before` (steps that it needs, which must all be verified) is made
    holds       looks from outside, not by what the action asks: is the effect there?
    lies        of applying; `reads` are the parts that verifying asks, each of which is made to be of no use
    undone      looks from outside whether a revert is true; `revert_lies` and `revert_reads` are of reverting
    changes_nothing   why no effect can be sabotaged: the action only reads
    never_undone      why nobody can undo the effect behind the action's back
    no_api            why there is no API that could say yes and do nothing
    files_only        why verifying asks no part that could be of no use
    not_looked_at     why a containment or an eradication is not looked at again
    never_drifts      why nobody can make untrue later what looking again (`recheck`) would see
    """

    action: Action[Any]
    scene: str
    params: Callable[[Any], dict[str, Any]]
    holds: Callable[[Any, Receipt], bool]
    before: Callable[[Any], None] | None = None
    lies: tuple[Lie, ...] = ()
    reads: tuple[str, ...] = ()
    undone: Callable[[Any, Receipt], bool] | None = None
    revert_lies: tuple[Lie, ...] = ()
    revert_reads: tuple[str, ...] = ()
    changes_nothing: str = ""
    never_undone: str = ""
    no_api: str = ""
    files_only: str = ""
    not_looked_at: str = ""
    never_drifts: str = ""
