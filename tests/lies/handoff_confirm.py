"""handoff.confirm: nobody said so, by the record, or somebody said so of another thing."""

from __future__ import annotations

from lies.case import Case, Lie
from sqlalchemy import delete, update

from clawback.actions.handoff_confirm import ACTION
from clawback.journal.schema import approvals, votes
from clawback.model import ApprovalState


def _recorded(scene, **values):
    with scene.journal.writing() as connection:
        connection.execute(update(approvals).where(approvals.c.incident == scene.incident_id).values(**values))


def _lie(what, *, key=f"{ACTION.id}:the host is clean:EDR-1", **values):
    truth = {"key": f"{ACTION.id}:the host is clean:EDR-1", "state": ApprovalState.USED, "action": ACTION.id}
    return Lie(
        what=what,
        behind=lambda scene, _: _recorded(scene, key=key, **values),
        mend=lambda scene: _recorded(scene, **truth),
    )


class _Votes:
    """Who said so is taken off the record, and put back."""

    def __init__(self):
        self.rows = []

    def take(self, scene, _outcome):
        with scene.journal.writing() as connection:
            self.rows = [dict(x._mapping) for x in connection.execute(votes.select())]
            connection.execute(delete(votes))

    def give_back(self, scene):
        with scene.journal.writing() as connection:
            connection.execute(votes.insert(), self.rows)


_votes = _Votes()

CASE = Case(
    action=ACTION,
    scene="asked",
    params=lambda _: {"what": "the host is clean", "about": "EDR-1"},
    holds=lambda scene, receipt: (
        [(vote.who, vote.grant) for one in scene.journal.approvals(incident=scene.incident_id) for vote in one.votes]
        == [("ann", True)]
        and receipt.proof == "confirmed, not observed: the host is clean (EDR-1), says ann"
    ),
    lies=(
        _lie("it was denied", state=ApprovalState.DENIED),
        _lie("it was never answered", state=ApprovalState.EXPIRED),
        _lie("it was said of another host", key=f"{ACTION.id}:the host is clean:EDR-2"),
        _lie("it was said of another step", action="agents.lift"),
        Lie(what="nobody said it", behind=_votes.take, mend=_votes.give_back),
    ),
    changes_nothing="it asks a person; what is claimed is that somebody said so, and the approval is the proof",
)
