"""Revoke one credential that was traced to the agent, for good: a Vault token, a lease, an AppRole secret-id."""

from __future__ import annotations

from clawback.actions._closing import closing_action

__all__ = ["ACTION"]

ACTION = closing_action(
    "credential.revoke",
    summary="Revoke one credential that came of what the agent held.",
    scope="one token with its children, one lease, or one secret-id; whoever holds it loses it",
    needs=frozenset(
        {
            "vault:auth/approle/role/+/secret-id",
            "vault:auth/approle/role/+/secret-id-accessor/destroy",
            "vault:auth/token/lookup-accessor",
            "vault:auth/token/revoke-accessor",
            "vault:sys/leases/lookup",
            "vault:sys/leases/revoke",
        }
    ),
    reversible=False,
)
