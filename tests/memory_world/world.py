"""A world in memory that holds state as the real one does, and that tests can make lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory_world.core import MemoryCore
from memory_world.orders import MemoryOrders
from memory_world.papers import MemoryDocuments, MemoryReviews, MemoryTickets
from memory_world.policies import MemoryPolicies
from memory_world.secrets import MemorySecrets
from memory_world.vault import MemoryVault, MemoryVaultRecords

from clawback.model import CredentialRef, LaunchSpec
from clawback.world import World

__all__ = ["MemoryWorld"]

GOOD = """\
networkPolicy:
  name: support
  egress:
    allow:
      - {name: api, domain: api.internal, ports: [80]}
"""
WIDE = GOOD + "      - {name: wide, domain: '*.partner.test'}\n"

TOKEN = CredentialRef(kind="vault-token", name="vault-token", identifiers={"accessor": "acc-1", "policies": "support"})


class MemoryWorld:
    """All of it, with one agent that runs under a widened policy and holds one Vault token, or `held`."""

    def __init__(
        self, folder: Path, *, agent: str = "a", secrets: Any = None, held: Sequence[tuple[CredentialRef, str]] = ()
    ) -> None:
        self.policies, self.secrets, self.tickets = MemoryPolicies(), secrets or MemorySecrets(), MemoryTickets()
        self.core = MemoryCore(folder, self.policies, self.secrets)
        self.reviews = MemoryReviews()
        self.telemetry, self.documents = self.core.telemetry, MemoryDocuments()
        self.policies.put("support", GOOD, author="soc", reason="reviewed", known_good=True)
        self.policies.put("support", WIDE, author="dev", reason="quick fix")
        held = held or ((TOKEN, "hvs.never-in-a-record-0123456789"),)
        for ref, value in held:
            self.secrets.put(agent, ref, value)
        self.core.launch(
            LaunchSpec(
                agent=agent,
                command=("python3", "agent.py", "--goal", "answer tickets"),
                policy="support",
                policy_version=2,
                policy_text=WIDE,
                credentials=tuple(ref for ref, _ in held),
                tenant="acme",
                team="support",
            )
        )
        self.orders = self.core.orders = MemoryOrders()
        self.vault = MemoryVault()
        self.vault.add("acc-1", "hvs.never-in-a-record-0123456789", {})
        self.world = World(
            core=self.core,
            policies=self.policies,
            secrets=self.secrets,
            tickets=self.tickets,
            orders_or_none=self.orders,
            documents_or_none=self.documents,
            vault_or_none=self.vault,
            vault_records_or_none=MemoryVaultRecords(self.vault),
            telemetry_or_none=self.core.telemetry,
            reviews_or_none=self.reviews,
        )
