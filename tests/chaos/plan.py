"""What is to go wrong in one trial, drawn from its seed and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from chaos.outside import KINDS, PARTS, Fault

__all__ = ["SERVERS", "Life", "Plan", "draw"]

SERVERS = ("journal", "vault", "aws", "tickets", "prefect")
"""What faults name beside `outside.PARTS` where the servers are real."""
_CHANGED = ("core", "policies", "tickets", "orders_or_none", "vault_or_none")


@dataclass(frozen=True)
class Life:
    """One process of a response.

    role      `reflex` (watch freezes and isolates), `flow` (the playbook), `undo`
    die       it is killed at this border (a journal write or a call of a part, before or after it); 0: not there
    after     or after so many seconds, wherever it is
    faults    what is wrong with the parts meanwhile
    pages     the disk with journal, secrets and evidence is full after so many further pages; 0: it is not
    full_at   from this border on
    free_at   until this one, or the life's end
    clock     its clock is off by so many seconds, and by `step` more from the border `step_at` on
    """

    role: str = "flow"
    die: int = 0
    after: float = 0.0
    faults: tuple[Fault, ...] = ()
    pages: int = 0
    full_at: int = 0
    free_at: int = 0
    clock: float = 0.0
    step: float = 0.0
    step_at: int = 0


@dataclass(frozen=True)
class Plan:
    """A trial: the playbook, the lives that something happens to. What comes after them is left in peace."""

    seed: int
    playbook: str
    detector: str
    lives: tuple[Life, ...]

    @property
    def kills(self) -> int:
        """How many processes are killed, if they live so long."""
        return sum(bool(life.die or life.after) for life in self.lives)


def draw(seed: int, borders: Mapping[tuple[str, str], int], *, real: bool = False) -> Plan:
    """`borders`: (playbook, detector) → how many borders an undisturbed flow crosses; `real`: the servers are."""
    chance = random.Random(seed)
    playbook, detector = chance.choice(sorted(borders))
    count = borders[playbook, detector]
    lives = [_life(chance, count, "reflex", real=real)] if chance.random() < 0.4 else []
    flows = chance.choice((1, 1, 2, 3) if real else (1, 2, 2, 3, 4))
    lives += [_life(chance, count, "flow", real=real) for _ in range(flows)]
    if chance.random() < 0.15:
        lives += [_life(chance, max(1, count // 4), "undo", real=real)]
    return Plan(seed=seed, playbook=playbook, detector=detector, lives=tuple(lives))


def _life(chance: random.Random, borders: int, role: str, *, real: bool) -> Life:
    most = 16 if role == "reflex" else borders
    by_time = chance.random() < 0.2
    longest = (0.5 if role == "reflex" else 5.0) if real else 0.05 if role == "reflex" else 0.6
    many = (0, 1, 1, 2) if real else (0, 0, 0, 1, 1, 2)
    return Life(
        role=role,
        die=0 if by_time else chance.randint(1, most),
        after=chance.uniform(longest / 12, longest) if by_time else 0.0,
        faults=tuple(_server_fault(chance) if real else _fault(chance) for _ in range(chance.choice(many))),
        **(_full(chance, most) if chance.random() < 0.08 else {}),
        clock=chance.choice((0.0, 0.0, 0.0, -86_400.0, 86_400.0, -5.0, 31_536_000.0)),
        step=chance.choice((0.0, 0.0, 0.0, -3_600.0, 3_600.0)),
        step_at=chance.randint(1, most),
    )


def _full(chance: random.Random, most: int) -> dict[str, int]:
    full_at = chance.randint(1, most)
    return {
        "pages": chance.randint(1, 12),
        "full_at": full_at,
        "free_at": chance.choice((0, full_at + chance.randint(2, 60))),
    }


def _fault(chance: random.Random) -> Fault:
    kind = chance.choice(KINDS)
    # A lie is told of a change, and the changes come early, and few.
    part, first = (
        chance.choice(_CHANGED if kind == "lying" else PARTS),
        chance.randint(1, 8 if kind == "lying" else 30),
    )
    return Fault(part, kind, first, first + chance.choice((0, 1, 5, 1000)))


def _server_fault(chance: random.Random) -> Fault:
    part, kind = chance.choice(SERVERS), chance.choice(KINDS)
    if part == "journal" and kind == "lying":
        kind = "hanging"  # nothing can be proved of a database that lies about what it keeps
    first = chance.choice((1, chance.randint(1, 800 if part == "journal" else 25)))
    # What hangs costs each caller its patience, what is slow some time at every call.
    spans = {"hanging": (0, 0, 1, 3), "slow": (0, 5, 20)}.get(kind, (0, 1, 5, 1000))
    return Fault(part, kind, first, first + chance.choice(spans))
