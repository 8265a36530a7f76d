"""What the OIDC actions share: the parts of a held value, finding it again without writing it down, and its client."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from clawback.action import Context
from clawback.errors import InvalidInput
from clawback.model import CredentialRef

__all__ = ["client_of", "identity", "jwt_expiry", "mark", "tokens_of", "value_with"]


def identity(ref: CredentialRef) -> tuple[str, str]:
    """(issuer, client id). `InvalidInput` where the reference lacks one."""
    issuer, client = ref.identifiers.get("issuer", ""), ref.identifiers.get("client_id", "")
    if not (issuer and client):
        raise InvalidInput(
            f"{ref.name} names no issuer and client", hint="store it with --id issuer=… and --id client_id=…"
        )
    return issuer, client


def mark(value: str) -> str:
    """By which a value is known again: 16 hex digits of its SHA-256. Of a random value, it tells nothing else."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def value_with(ctx: Context, agent: str, name: str, marked: str) -> str | None:
    """The agent's current or replaced value that has this mark."""
    store = ctx.world.secrets
    for value in (store.old(agent, name), store.current(agent, name)):
        if value is not None and mark(value) == marked:
            return value
    return None


def tokens_of(value: str) -> dict[str, str]:
    """`refresh_token`, `access_token` → token, of a token response's JSON; any other text is an access token.

    The refresh token comes first: as long as it lives, it makes new access tokens.
    """
    try:
        raw: Any = json.loads(value)
    except ValueError:
        raw = value.strip()
    if not isinstance(raw, dict):
        return {"access_token": value.strip()}
    found = {kind: raw[kind] for kind in ("refresh_token", "access_token") if raw.get(kind)}
    if not found or not all(isinstance(token, str) for token in found.values()):
        raise InvalidInput("no token in it", hint='a token response\'s JSON: "access_token", "refresh_token"')
    return found


def jwt_expiry(token: str) -> int | None:
    """`exp` of a JWT, seconds since 1970 by the issuer's clock, 0 where it names none; None for any other token.

    Unverified: it is the token's own word, good enough to say until when it would be accepted, for nothing else.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        header, payload = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
        return int(payload.get("exp", 0)) if isinstance(header, dict) and header.get("alg") else None
    except (ValueError, TypeError, AttributeError):
        return None


def client_of(ctx: Context, agent: str, issuer: str, client_id: str) -> str:
    """The credential of that client that the agent holds; empty where it holds none."""
    for ref in ctx.world.secrets.refs(agent):
        if ref.kind == "oidc-client" and identity(ref) == (issuer, client_id):
            return ctx.world.secrets.current(agent, ref.name)
    return ""
