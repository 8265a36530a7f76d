"""A credential of an agent's is used where it must not be: by somebody else, or sent to a host that is not its own."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import CREDENTIAL_MISUSED, CredentialUse, HttpActivity, Level, Severity

__all__ = ["DETECTOR"]


@detector(
    id="credentials.misused",
    title="Credential misused",
    reads={CredentialUse, HttpActivity},
    severity=Severity.CRITICAL,
    technique="T1078.004",
    reflex=Level.ISOLATE,
    attack=("T1078.004", "T1528", "T1552"),
    atlas=("AML.T0012", "AML.T0055"),
    asi=("ASI03",),
    seed_asi=("ASI-02",),
)
def credential_misuse(event: CredentialUse | HttpActivity, _memory: Stateless) -> Hit | None:
    """By the issuer's record: a use from elsewhere, or any use of a canary. One from elsewhere that the issuer refused
    counts: whoever tried has the value. By the gateway: a placeholder on its way to a host that its credential is not
    for, which was refused, and shows what was meant.
    """
    if isinstance(event, HttpActivity):
        return _sent(event)
    if not (event.elsewhere or event.canary):
        return None
    what = "the canary" if event.canary else "the credential"
    outcome = "refused" if event.blocked else "accepted"
    return Hit(
        resource=f"{event.credential}@{event.origin or 'unknown'}",
        summary=f"{what} {event.credential} was used from {event.origin or 'an unknown address'} at {event.issuer}"
        f" ({event.operation or 'no operation named'}): {outcome}",
    )


def _sent(event: HttpActivity) -> Hit | None:
    if not event.blocked or not event.reason.startswith(CREDENTIAL_MISUSED):
        return None
    target = f"{event.host.lower().rstrip('.')}:{event.port}"
    return Hit(
        resource=target,
        summary=f"refused {event.method} to {target}: {event.reason.removeprefix(CREDENTIAL_MISUSED)}",
    )


DETECTOR = credential_misuse
