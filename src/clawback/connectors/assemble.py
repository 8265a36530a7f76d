"""The real outside, from the settings. Nothing is contacted, and no heavy library imported, until it is first used."""

from __future__ import annotations

from clawback.config import Settings
from clawback.connectors.aws import AwsConnector
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.tickets import FileTickets
from clawback.connectors.vault import VaultConnector
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.gateway.client import GatewayClient
from clawback.world import World

__all__ = ["assemble"]


def assemble(settings: Settings) -> World:
    """The world that actions act on."""
    vault = settings.vault
    aws = settings.aws
    return World(
        core=CoreClient(settings.core_socket),
        policies=GatewayClient(settings.gateway_socket),
        secrets=FileSecretStore(settings.state / "secrets"),
        tickets=FileTickets(settings.state / "tickets"),
        vault_or_none=VaultConnector(vault.address, vault.token_file) if vault else None,
        cloud_or_none=AwsConnector(
            region=aws.region, endpoint_url=aws.endpoint_url, credentials_file=aws.credentials_file
        )
        if aws
        else None,
    )
