"""The real outside, from the settings. Nothing is contacted, and no heavy library imported, until it is first used."""

from __future__ import annotations

from clawback.config import Settings
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.documents import FileDocuments
from clawback.connectors.jira import Jira
from clawback.connectors.notify import Channels
from clawback.connectors.oidc import OidcConnector
from clawback.connectors.oidc_issuer import Issuer
from clawback.connectors.postgres import PostgresLogins
from clawback.connectors.reviews import FileReviews
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.telemetry import FileTelemetry
from clawback.connectors.tickets import FileTickets
from clawback.connectors.tracked_tickets import TrackedTickets
from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.gateway.client import GatewayClient
from clawback.world import RecoveryTerms, Tickets, World
from clawback.world.vault_engines import Reissue

__all__ = ["assemble"]


def assemble(settings: Settings) -> World:
    """The world that actions act on."""
    vault, aws = settings.vault, settings.aws
    secrets_manager = (
        VaultConnector(vault.address, vault.token_file, reissue=Reissue(ttl=vault.reissue_ttl, uses=vault.reissue_uses))
        if vault
        else None
    )
    cloud = (
        AwsConnector(region=aws.region, endpoint_url=aws.endpoint_url, credentials_file=aws.credentials_file)
        if aws
        else None
    )
    gateway = GatewayClient(settings.gateway_socket)
    recovery = settings.recovery
    return World(
        core=CoreClient(settings.core_socket),
        policies=gateway,
        orders_or_none=gateway,
        secrets=FileSecretStore(settings.state / "secrets"),
        tickets=_tickets(settings),
        telemetry_or_none=FileTelemetry(settings.telemetry),
        documents_or_none=FileDocuments(settings.state / "compliance"),
        sandbox_down_halts=settings.sandbox_down_halts,
        vault_or_none=secrets_manager,
        cloud_or_none=cloud,
        vault_records_or_none=VaultRecordsConnector(
            secrets_manager, audit_log=vault.audit_log, audit_device=vault.audit_device
        )
        if vault and secrets_manager
        else None,
        databases_or_none=PostgresLogins(),
        notifier_or_none=Channels(settings.state / "notices", settings.notify.channels),
        cloud_records_or_none=AwsRecordsConnector(cloud) if cloud else None,
        reviews_or_none=FileReviews(settings.state / "reviews"),
        transcripts=settings.evidence.transcripts,
        recovery=RecoveryTerms(
            observe_seconds=recovery.observe_seconds,
            restricted_seconds=recovery.restricted_seconds,
            share=recovery.share,
            look_back_hours=recovery.look_back_hours,
            most=recovery.most,
            within_hours=recovery.within_hours,
        ),
        oidc_or_none=OidcConnector(
            Issuer(
                entry.issuer,
                credentials_file=entry.credentials_file,
                initial_token_file=entry.initial_token_file,
                ca_file=entry.ca_file,
            )
            for entry in settings.oidc
        )
        if settings.oidc
        else None,
    )


def _tickets(settings: Settings) -> Tickets:
    folder, jira = settings.state / "tickets", settings.jira
    if jira is None:
        return FileTickets(folder)
    return TrackedTickets(folder, Jira(jira), {phase.value: status for phase, status in jira.statuses.items()})
