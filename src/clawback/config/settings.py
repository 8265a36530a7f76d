"""All settings as one, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from clawback.config.issuers import AwsSettings, OidcSettings, VaultSettings
from clawback.config.parts import CoreSettings, GatewaySettings, PrefectSettings, ResponderSettings, WatchSettings
from clawback.config.people import ApprovalSettings, JiraSettings, NotifySettings
from clawback.config.response import DriftSettings, EvidenceSettings, RecoverySettings
from clawback.errors import InvalidInput

__all__ = ["Settings", "load"]


def _default_state() -> Path:
    if os.geteuid() == 0 and os.access("/var/lib", os.W_OK):  # root of a user namespace may not write there
        return Path("/var/lib/clawback")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "clawback"


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        env_prefix="CLAWBACK_", env_nested_delimiter="__", extra="forbid", frozen=True, yaml_file=None
    )

    state: Path = Field(default_factory=_default_state)
    sandbox_down_halts: Literal["all", "tenant", "team", "none"] = Field(
        "all",
        description="whom a sandbox that is down halts on its host: all agents, its own agent's tenant's, its team's",
    )
    own_addresses: tuple[str, ...] = Field(
        (), description="addresses that this host's traffic leaves by: a use of a credential from another is elsewhere"
    )
    drill: bool = Field(False, description="all that happens here is rehearsed: every incident is marked as a drill")
    journal_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the state folder")
    core: CoreSettings = CoreSettings()
    gateway: GatewaySettings = GatewaySettings()
    watch: WatchSettings = WatchSettings()
    responder: ResponderSettings = ResponderSettings()
    vault: VaultSettings | None = None
    aws: AwsSettings | None = None
    oidc: tuple[OidcSettings, ...] = ()
    jira: JiraSettings | None = None
    notify: NotifySettings = NotifySettings()
    prefect: PrefectSettings = PrefectSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    recovery: RecoverySettings = RecoverySettings()
    evidence: EvidenceSettings = EvidenceSettings()
    drift: DriftSettings = DriftSettings()

    @property
    def run(self) -> Path:
        """Where the sockets are."""
        return self.state / "run"

    @property
    def core_socket(self) -> Path:
        """The core's API."""
        return self.run / "core.sock"

    @property
    def gateway_socket(self) -> Path:
        """The gateway's API."""
        return self.run / "gateway.sock"

    @property
    def telemetry(self) -> Path:
        """Holds `sandbox.jsonl`, `policy.jsonl`, `routing.jsonl`, `external.jsonl`."""
        return self.state / "telemetry"

    @property
    def journal(self) -> str:
        """The journal's SQLAlchemy URL."""
        return self.journal_url or f"sqlite:///{self.state / 'journal.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)


def _find(path: Path | None) -> Path | None:
    if path is None and (named := os.environ.get("CLAWBACK_CONFIG")):
        path = Path(named)
    if path is not None:
        if not path.is_file():
            raise InvalidInput(f"no configuration file at {path}", hint="check --config or CLAWBACK_CONFIG")
        return path
    for candidate in (Path("clawback.yaml"), Path("/etc/clawback/clawback.yaml")):
        if candidate.is_file():
            return candidate
    return None


def load(path: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings. `InvalidInput` names the file and key, and never repeats a value."""
    file = _find(path)

    class _FromFile(Settings):
        model_config = SettingsConfigDict(yaml_file=file)

    # CLAWBACK_CONFIG and CLAWBACK_TEST_DATA share the prefix but are no settings; pydantic reads only known names.
    try:
        return _FromFile(**overrides)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise InvalidInput(f"{where}: not YAML", hint="check the indentation and quotes there") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{file or 'environment'}: {key}: {first['msg']}", hint="the keys are listed in docs/configuration.md"
        ) from None
