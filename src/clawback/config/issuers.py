"""Settings of who issues credentials: Vault, AWS, identity providers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from clawback.config.section import Section

__all__ = [
    "AwsSettings",
    "OidcSettings",
    "VaultSettings",
]


class VaultSettings(Section):
    """`vault:`: HashiCorp Vault or OpenBao."""

    address: str
    token_file: Path
    reissue_ttl: int = Field(
        3600, ge=60, le=86_400 * 31, description="seconds that what is issued in place of a leaked credential lives"
    )
    reissue_uses: int = Field(10, ge=1, description="logins that a secret-id issued so is good for")
    audit_log: Path | None = Field(
        None, description="file of its audit device, readable by us: tells which token issued which"
    )
    audit_device: str = Field("file", description="that device's path in the server", max_length=128)


class AwsSettings(Section):
    """`aws:`: IAM. Credentials come from boto3's own chain, or from `credentials_file` (JSON, mode 0600)."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    credentials_file: Path | None = None


class OidcSettings(Section):
    """One entry of `oidc:`, an identity provider."""

    issuer: str = Field(description="https URL, as its metadata and tokens name it")
    credentials_file: Path | None = Field(
        None, description="Clawback's own client there, to introspect and revoke: JSON, mode 0600"
    )
    initial_token_file: Path | None = Field(
        None, description="initial access token with which clients are registered, mode 0600"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority of its certificate")
