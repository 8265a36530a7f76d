"""The outside, as actions see it: Protocols only. `clawback.connectors` and the enforcement clients implement them."""

from __future__ import annotations

from dataclasses import dataclass, field

from clawback.errors import Unreachable
from clawback.world.cloud import Cloud
from clawback.world.credentials import Vault
from clawback.world.databases import Databases
from clawback.world.documents import Documents
from clawback.world.notices import Notifier
from clawback.world.oidc import Oidc
from clawback.world.orders import Orders
from clawback.world.parts import Core, Policies, SecretStore, Tickets
from clawback.world.records import Audited, AuditLog, CloudRecords, Identity, Trail, TrailEvent, VaultRecords
from clawback.world.recovery import RecoveryTerms
from clawback.world.reviews import Reviews
from clawback.world.telemetry import Sighted, Telemetry

__all__ = [
    "AuditLog",
    "Audited",
    "Cloud",
    "CloudRecords",
    "Core",
    "Databases",
    "Documents",
    "Identity",
    "Notifier",
    "Oidc",
    "Orders",
    "Policies",
    "RecoveryTerms",
    "Reviews",
    "SecretStore",
    "Sighted",
    "Telemetry",
    "Tickets",
    "Trail",
    "TrailEvent",
    "Vault",
    "VaultRecords",
    "World",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything an action may reach. A part that is not configured is `Unreachable` once it is asked for.

    `transcripts` are patterns of the files in a sandbox in which agents write down what they were told and did.
    `sandbox_down_halts` is whom the settings want halted when a sandbox is down: `all`, `tenant`, `team` or `none`.
    """

    core: Core
    policies: Policies
    secrets: SecretStore
    tickets: Tickets
    orders_or_none: Orders | None = None
    vault_or_none: Vault | None = None
    cloud_or_none: Cloud | None = None
    databases_or_none: Databases | None = None
    notifier_or_none: Notifier | None = None
    vault_records_or_none: VaultRecords | None = None
    cloud_records_or_none: CloudRecords | None = None
    oidc_or_none: Oidc | None = None
    telemetry_or_none: Telemetry | None = None
    documents_or_none: Documents | None = None
    reviews_or_none: Reviews | None = None
    transcripts: tuple[str, ...] = ()
    sandbox_down_halts: str = "all"
    recovery: RecoveryTerms = field(default_factory=RecoveryTerms)

    @property
    def telemetry(self) -> Telemetry:
        """What the core and the gateway wrote."""
        if self.telemetry_or_none is None:
            raise Unreachable("no telemetry can be read here", hint="run this where the core and the gateway write it")
        return self.telemetry_or_none

    @property
    def orders(self) -> Orders:
        """Orders over the agents' way out."""
        if self.orders_or_none is None:
            raise Unreachable("no gateway takes orders here", hint="is `clawback gateway` part of this host?")
        return self.orders_or_none

    @property
    def reviews(self) -> Reviews:
        """Where reviews are kept."""
        if self.reviews_or_none is None:
            raise Unreachable("no reviews can be kept here", hint="run this where the journal is")
        return self.reviews_or_none

    @property
    def vault(self) -> Vault:
        """The secrets manager."""
        if self.vault_or_none is None:
            raise Unreachable("no Vault is configured", hint="set vault.address in clawback.yaml")
        return self.vault_or_none

    @property
    def cloud(self) -> Cloud:
        """The cloud's IAM."""
        if self.cloud_or_none is None:
            raise Unreachable("no cloud account is configured", hint="set aws.region in clawback.yaml")
        return self.cloud_or_none

    @property
    def databases(self) -> Databases:
        """The databases that agents log in to."""
        if self.databases_or_none is None:
            raise Unreachable("there is no client for databases here", hint="pip install 'clawback[postgres]'")
        return self.databases_or_none

    @property
    def vault_records(self) -> VaultRecords:
        """What the secrets manager wrote down."""
        if self.vault_records_or_none is None:
            raise Unreachable("no Vault is configured", hint="set vault.address in clawback.yaml")
        return self.vault_records_or_none

    @property
    def cloud_records(self) -> CloudRecords:
        """What the cloud wrote down."""
        if self.cloud_records_or_none is None:
            raise Unreachable("no cloud account is configured", hint="set aws.region in clawback.yaml")
        return self.cloud_records_or_none

    @property
    def documents(self) -> Documents:
        """Where documents for auditors go."""
        if self.documents_or_none is None:
            raise Unreachable("there is no place for documents here", hint="run it where the state folder is")
        return self.documents_or_none

    @property
    def oidc(self) -> Oidc:
        """The identity providers."""
        if self.oidc_or_none is None:
            raise Unreachable("no identity provider is configured", hint="add its issuer to oidc in clawback.yaml")
        return self.oidc_or_none
