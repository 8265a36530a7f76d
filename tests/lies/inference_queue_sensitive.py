"""inference.queue-sensitive: what is sensitive goes on to the cloud again, or always did."""

from __future__ import annotations

from lies.models import inferred

from clawback.actions.inference_queue_sensitive import ACTION

CASE = inferred(ACTION, "cloud sensitive")
