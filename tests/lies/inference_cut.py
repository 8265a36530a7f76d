"""inference.cut: a model is reached again, or always was."""

from __future__ import annotations

from lies.models import inferred

from clawback.actions.inference_cut import ACTION

CASE = inferred(ACTION, "cloud plain", "cloud sensitive", "local plain")
