"""Which state a receipt may go to from which, and what settles it. Tested as a table."""

from __future__ import annotations

from clawback.model import ReceiptState

__all__ = ["FROM", "REVERTED", "SETTLED", "UNDOABLE"]

_S = ReceiptState

# A new attempt may begin from anything but a step that somebody undid: a resumed playbook must not do it again.
FROM: dict[ReceiptState, frozenset[ReceiptState]] = {
    _S.AWAITING: frozenset({_S.AWAITING, _S.FAILED}),
    _S.INTENDED: frozenset({_S.AWAITING, _S.INTENDED, _S.APPLIED, _S.VERIFIED, _S.UNVERIFIED, _S.FAILED}),
    _S.APPLIED: frozenset({_S.INTENDED}),
    _S.VERIFIED: frozenset({_S.APPLIED, _S.UNVERIFIED, _S.VERIFIED}),
    _S.UNVERIFIED: frozenset({_S.APPLIED, _S.UNVERIFIED, _S.VERIFIED}),
    _S.FAILED: frozenset({_S.AWAITING, _S.INTENDED, _S.APPLIED, _S.UNVERIFIED, _S.FAILED}),
    _S.REVERT_PENDING: frozenset(
        {
            _S.AWAITING,
            _S.INTENDED,
            _S.APPLIED,
            _S.VERIFIED,
            _S.UNVERIFIED,
            _S.FAILED,
            _S.REVERT_PENDING,
            _S.REVERT_FAILED,
            _S.ORPHANED,
            _S.ACCEPTED,
        }
    ),
    _S.REVERTED: frozenset({_S.REVERT_PENDING}),
    _S.REVERT_FAILED: frozenset({_S.REVERT_PENDING}),
    _S.ALREADY_ABSENT: frozenset({_S.REVERT_PENDING}),
    _S.ORPHANED: frozenset({_S.REVERT_PENDING}),
    # Not what is being undone: that goes on, and ends as something that can be let stand.
    _S.ACCEPTED: frozenset(
        {_S.AWAITING, _S.INTENDED, _S.APPLIED, _S.UNVERIFIED, _S.FAILED, _S.REVERT_FAILED, _S.ORPHANED}
    ),
}

REVERTED = frozenset({_S.REVERTED, _S.ALREADY_ABSENT})
UNDOABLE = FROM[_S.REVERT_PENDING]
SETTLED = frozenset(state for state in _S if state.settled)
