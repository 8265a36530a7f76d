"""Evidence: what is kept of an agent before anything about it is changed for good."""

from clawback.enforcement.evidence.collection import collect
from clawback.enforcement.evidence.verification import Verified, verify
from clawback.enforcement.evidence.writer import Limits

__all__ = ["Limits", "Verified", "collect", "verify"]
