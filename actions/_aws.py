"""What the AWS actions share: whom a credential speaks for, names of what is put there, and trying the credential."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from clawback.action import Context, Record
from clawback.actions._credentials import (
    CredentialParams,
    access_key_of,
    as_record,
    from_record,
    held,
    key_id,
    watch_accepted,
    watch_refused,
)
from clawback.model import CredentialRef

__all__ = [
    "KINDS",
    "bound_name",
    "capture_uses",
    "principals",
    "ref_of",
    "tried_accepted",
    "tried_refused",
    "value_of_key",
]

KINDS = ("aws-access-key", "aws-session")
_LONGEST_NAME = 128  # of inline and managed policies


def bound_name(ctx: Context, kind: str, params: CredentialParams, *apart: str) -> str:
    """A policy name for one incident, one credential and what else keeps two apart: undone, just what was put goes."""
    whole = "/".join((ctx.incident.id, params.agent, params.name, *apart))
    readable = re.sub(r"[^\w+=,.@-]", "-", f"clawback-{kind}-{ctx.incident.id}-{params.name}", flags=re.ASCII)
    mark = hashlib.sha256(whole.encode()).hexdigest()[:10]
    return f"{readable[: _LONGEST_NAME - len(mark) - 1]}-{mark}"


def principals(ref: CredentialRef) -> tuple[str, ...]:
    """Whom the credential speaks for: the user first, who could become the role anew, then the role."""
    user, role = ref.identifiers.get("user", ""), ref.identifiers.get("role", "")
    return (*((f"user/{user}",) if user else ()), *((role,) if role else ()))


def capture_uses(ctx: Context, params: CredentialParams) -> dict[str, Any]:
    """For the journal: the credential, and for each principal the access key id of what the agent holds of it and
    whether that was accepted just now.
    """
    ref = held(ctx, params, *KINDS)
    uses: dict[str, Any] = {}
    for principal in principals(ref):
        value = _credential_of(ctx, params, ref, principal)
        if value is None:
            uses[principal] = {"access_key_id": "", "accepted": False, "answer": "the agent holds nothing of it"}
        else:
            accepted, answer = ctx.world.cloud.permitted(value)
            uses[principal] = {"access_key_id": key_id(value), "accepted": accepted, "answer": answer}
    return {"ref": as_record(ref), "uses": uses}


def tried_refused(
    ctx: Context, params: CredentialParams, captured: Record, principal: str, *, because: str
) -> tuple[bool, str, str]:
    """Use what the agent held of a principal until its refusal has lasted: (no use was accepted, proof, what is
    missing from the proof).

    `because` is what AWS's answer must say for the refusal to be our doing.
    """
    use = captured["uses"][principal]
    value = value_of_key(ctx, params.agent, use["access_key_id"])
    if value is None:
        return True, "", f"nothing of {principal} was at hand to be used"
    cloud = ctx.world.cloud
    refused, answer = watch_refused(lambda: cloud.permitted(value), cloud.settle)
    proof = f"{use['access_key_id']} used for {principal}: {'refused' if refused else 'ACCEPTED'} ({answer})"
    if not refused:
        return False, proof, ""
    if because not in answer:
        return True, proof, f"the refusal of {use['access_key_id']} does not say {because}: it may have another cause"
    return True, proof, ""


def tried_accepted(ctx: Context, params: CredentialParams, captured: Record, principal: str) -> tuple[bool, str]:
    """After an undoing: what was accepted before is accepted again, or it is said why not: (as before, proof)."""
    use = captured["uses"][principal]
    value = value_of_key(ctx, params.agent, use["access_key_id"])
    if value is None or not use["accepted"]:
        return True, f"{principal}: nothing was seen to work before, nothing was used"
    cloud = ctx.world.cloud
    accepted, answer = watch_accepted(lambda: cloud.permitted(value), cloud.settle)
    return accepted, f"{use['access_key_id']} used for {principal}: {'accepted' if accepted else 'REFUSED'} ({answer})"


def value_of_key(ctx: Context, agent: str, access_key_id: str) -> str | None:
    """What the agent holds, or held before its last replacement, with this access key id."""
    if not access_key_id:
        return None
    store = ctx.world.secrets
    for ref in store.refs(agent):
        if ref.kind in KINDS:
            for value in (store.current(agent, ref.name), store.old(agent, ref.name)):
                if value is not None and key_id(value) == access_key_id:
                    return value
    return None


def _credential_of(ctx: Context, params: CredentialParams, ref: CredentialRef, principal: str) -> str | None:
    """The named credential for the principal that it is of; for its user, an access key that the agent holds too."""
    own = ref.identifiers.get("role", "") or f"user/{ref.identifiers.get('user', '')}"
    if principal == own:
        return ctx.world.secrets.current(params.agent, params.name)
    return access_key_of(ctx, params.agent, principal.partition("/")[2])


def ref_of(captured: Record) -> CredentialRef:
    """The credential as it was captured."""
    return from_record(captured["ref"])
