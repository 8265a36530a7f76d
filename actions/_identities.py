"""Whose credentials an agent held: users, roles and logins, by the identifiers and by what their issuers say."""

from __future__ import annotations

from collections.abc import Iterable

from clawback.action import Context
from clawback.errors import ClawbackError
from clawback.log import redact_text
from clawback.model import CredentialRef

__all__ = ["identities"]

_MOST = 50
_LONGEST = 200
# Vault's ways to log in write who somebody is under these names.
_WHO = ("username", "user", "email", "role_name", "service_account_name", "agent")


def identities(ctx: Context, refs: Iterable[CredentialRef]) -> list[dict[str, str]]:
    """`who`, `by` (the credential's name), `source`. What an issuer could not be asked is said in its place."""
    found: dict[str, dict[str, str]] = {}
    for ref in refs:
        for who, source in (*_named(ref), *_issued(ctx, ref)):
            text = redact_text(who)[:_LONGEST]
            found.setdefault(f"{text} {ref.name}", {"who": text, "by": ref.name, "source": source})
    return list(found.values())[:_MOST]


def _named(ref: CredentialRef) -> list[tuple[str, str]]:
    named = [(f"AWS user {ref.identifiers['user']}", "inventory")] if ref.identifiers.get("user") else []
    if ref.identifiers.get("role"):
        named.append((f"AWS role {ref.identifiers['role']}", "inventory"))
    return named


def _issued(ctx: Context, ref: CredentialRef) -> list[tuple[str, str]]:
    if ref.kind != "vault-token" or not ref.identifiers.get("accessor"):
        return []
    try:
        facts = ctx.world.vault.token_lookup(ref.identifiers["accessor"])
    except ClawbackError as error:
        return [(f"unknown: {error.message}", "Vault")]
    if facts is None:
        return [("unknown: the issuer no longer knows the token", "Vault")]
    found = [(f"Vault {facts['display_name']}", "Vault")] if facts.get("display_name") else []
    meta = facts.get("meta") or {}
    return found + [(f"{name} {meta[name]}", "Vault, the token's metadata") for name in _WHO if meta.get(name)]
