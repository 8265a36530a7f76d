"""inference.local-only: the model in the cloud is reached again, or always was."""

from __future__ import annotations

from lies.models import inferred

from clawback.actions.inference_local_only import ACTION

CASE = inferred(ACTION, "cloud plain", "cloud sensitive")
