"""Tabletop drills: the production code path against a real rogue agent, in surroundings that are thrown away."""

from clawback.drills.declaration import Drill, find, load
from clawback.drills.rehearse import Outcome, rehearse

__all__ = ["Drill", "Outcome", "find", "load", "rehearse"]
