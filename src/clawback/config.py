"""Settings: `clawback.yaml`, then `CLAWBACK_*` over it (`CLAWBACK_VAULT__ADDRESS` for `vault.address`).

The file is the one named by `--config` or `CLAWBACK_CONFIG`, else `./clawback.yaml`, else
`/etc/clawback/clawback.yaml`, else none: every key has a default that works on one machine. Unknown keys are errors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from clawback.errors import InvalidInput
from clawback.model import InferenceKind, Phase

__all__ = [
    "AnswerSettings",
    "ApprovalRule",
    "ApprovalSettings",
    "AwsSettings",
    "ChannelSettings",
    "CoreSettings",
    "DriftSettings",
    "EvidenceSettings",
    "GatewaySettings",
    "InferenceSettings",
    "JiraSettings",
    "NotifySettings",
    "OidcSettings",
    "PrefectSettings",
    "RecoverySettings",
    "ReleaseSettings",
    "ResponderSettings",
    "Settings",
    "VaultSettings",
    "WatchSettings",
    "is_private",
    "load",
]


def _default_state() -> Path:
    if os.geteuid() == 0 and os.access("/var/lib", os.W_OK):  # root of a user namespace may not write there
        return Path("/var/lib/clawback")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "clawback"


def is_private(url: str) -> bool:
    """Whether what is sent there is seen by nobody else: by TLS, or because it does not leave the machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"})


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseSettings(_Section):
    """`core.release:`: who may lift a hold, beside `core.allow`."""

    separation: bool = Field(False, description="the user id that ordered a hold may not lift it, root included")
    approvers: tuple[int, ...] = Field((), description="user ids that may lift holds; empty: all that may call release")


class CoreSettings(_Section):
    """`core:`: sandboxes and quarantine."""

    cgroup: str = Field("clawback", description="name of the core's own group under the cgroup roots")
    uid_base: int = Field(1_900_000, ge=65_536, description="first of the outer user ids given to agents, one each")
    allow: dict[int, tuple[str, ...]] = Field(
        default_factory=dict, description="user id → verbs it may call; root and the core's own user may call all"
    )
    canaries: tuple[str, ...] = Field(
        ("/root/.aws/credentials", "/root/.ssh/id_ed25519", "/etc/clawback/credentials"),
        description="empty decoy files placed in every sandbox; opening one is telemetry",
    )
    landlock_audit: bool = Field(
        False, description="switch the host's audit on, so that Landlock denials are reported (80 ns a system call)"
    )
    trace: Literal["off", "denials", "on"] = Field(
        "denials",
        description="report registers of denied calls and what Landlock or a missing route refused (88 ns a system call"
        " of the whole host while on): never, for ten seconds after each denied call, or always",
    )
    bound_audit_wait: bool = Field(
        True,
        description="while the core runs, nobody on the host waits longer than 25 jiffies for room in the audit"
        " queue; else an agent that is refused much may be stuck there, neither frozen nor killed, for a minute",
    )
    heartbeat_seconds: float = Field(5.0, gt=0)
    escalation_seconds: float = Field(
        60.0, gt=0, le=3600, description="how long an escalated system call waits for a person; then it is refused"
    )
    verify_seconds: float = Field(
        5.0, ge=0.1, description="each hold is verified anew at least this often; sooner after an order or a drift"
    )
    release: ReleaseSettings = ReleaseSettings()


class InferenceSettings(_Section):
    """One of `gateway.inference`: where a model is reached."""

    host: str = Field(
        description="HOST or HOST:PORT; `*.` before it for all below",
        pattern=r"^(\*\.)?(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@*\s]+)(:[1-9][0-9]{0,4})?$",
        max_length=260,
    )
    kind: InferenceKind = Field(description="local or cloud")
    path: str = Field("", max_length=1024, description="prefix of its paths, such as /v1; none: all")

    @property
    def name(self) -> str:
        """The host alone."""
        return self.host[: -len(f":{self.port}")] if self.port else self.host

    @property
    def port(self) -> int:
        """0 for any."""
        _, mark, port = self.host.rpartition("]")[2].rpartition(":")
        return int(port) if mark else 0


class GatewaySettings(_Section):
    """`gateway:`: the agents' only way out."""

    uid: int = Field(1_899_999, ge=1, description="user to become, where the gateway is started with the right to")
    resolve: dict[str, str] = Field(default_factory=dict, description="host name → address, before DNS")
    allow_private: tuple[str, ...] = Field(
        (), description="private or loopback networks that policies may lead to (CIDR)"
    )
    upstream_ca: Path | None = Field(
        None, description="PEM file of roots that destinations' certificates may end in, beside the system's"
    )
    inference: tuple[InferenceSettings, ...] = Field((), description="where models are, for orders about inference")
    queue_seconds: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="how long what an order holds as sensitive waits; then it is refused",
    )


class WatchSettings(_Section):
    """`watch:`: detectors and reflexes."""

    contained_per_minute: int = Field(
        60, ge=0, description="agents that automation may contain in any minute without a person; 0: any number"
    )


class ResponderSettings(_Section):
    """`responder:`: who runs playbooks."""

    embedded: bool = Field(
        True, description="watch has a responder of its own; else only `clawback worker` processes run playbooks"
    )


class VaultSettings(_Section):
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


class AwsSettings(_Section):
    """`aws:`: IAM. Credentials come from boto3's own chain, or from `credentials_file` (JSON, mode 0600)."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    credentials_file: Path | None = None


class OidcSettings(_Section):
    """One entry of `oidc:`, an identity provider."""

    issuer: str = Field(description="https URL, as its metadata and tokens name it")
    credentials_file: Path | None = Field(
        None, description="Clawback's own client there, to introspect and revoke: JSON, mode 0600"
    )
    initial_token_file: Path | None = Field(
        None, description="initial access token with which clients are registered, mode 0600"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority of its certificate")


class JiraSettings(_Section):
    """`jira:`: a Jira Cloud project in which each incident gets an issue."""

    base_url: str = Field(pattern=r"^https?://[^/\s?#@]+/?$", description="https://SITE.atlassian.net")
    project: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$", description="the project's key")
    issue_type: str = Field("Task", min_length=1, max_length=60)
    user: str = Field("", max_length=254, description="account that the API token is of; empty: it is an OAuth token")
    token_file: Path = Field(description="the token, mode 0600")
    statuses: dict[Phase, str] = Field(
        default_factory=dict, description="phase of the incident → status that its issue is moved to"
    )

    @model_validator(mode="after")
    def _private(self) -> Self:
        if not is_private(self.base_url):
            raise ValueError("a token over plain HTTP can be read on the way: https://")
        return self


class ChannelSettings(_Section):
    """One of `notify.channels`. The address of a webhook is a secret: whoever has it can write there."""

    kind: Literal["pagerduty-events-v2", "slack-webhook", "teams-webhook", "webhook"]
    url_file: Path | None = Field(None, description="file with the channel's address, mode 0600")
    url: str = Field("", description="the address outright, where it is no secret: PagerDuty's")
    secret_file: Path | None = Field(None, description="PagerDuty's integration key, or what `webhook` signs with")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "pagerduty-events-v2":
            if self.url_file or not self.secret_file:
                raise ValueError("secret_file holds the integration key; url, if any, is no secret")
            if self.url and not is_private(self.url):
                raise ValueError("url: the integration key over plain HTTP can be read on the way: https://")
            return self
        if self.url or not self.url_file:
            raise ValueError("the address is a secret: put it into a file, and that under url_file")
        if bool(self.secret_file) != (self.kind == "webhook"):
            raise ValueError("secret_file: a webhook signs with it; the others have none")
        return self


class NotifySettings(_Section):
    """`notify:`: whom `notify.send` tells, by a name of your choice."""

    channels: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")], ChannelSettings] = Field(
        default_factory=dict
    )


class PrefectSettings(_Section):
    """`prefect:`: with no `api_url`, `clawback up` runs a server of its own on `port` (0: any free one)."""

    api_url: str | None = None
    port: int = Field(0, ge=0, le=65_535)
    drills: dict[str, str] = Field(
        default_factory=dict, description="drill → cron, its first schedule; after that people change it in Prefect"
    )
    database_url: str = Field("", description="of the embedded server; empty: SQLite in the state folder")


class EvidenceSettings(_Section):
    """`evidence:`: what is kept of an agent beside what the kernel shows."""

    transcripts: tuple[str, ...] = Field(
        ("/sandbox/.openclaw/agents/*/sessions/*.jsonl",),
        max_length=16,
        description="files in the sandbox in which agents write down what they were told and did; `*` within one part",
    )


class RecoverySettings(_Section):
    """`recovery:`: how an agent is let go again, in stages."""

    observe_seconds: float = Field(
        10, ge=0, le=7 * 86_400, description="how long it runs with every call denied, and is watched"
    )
    restricted_seconds: float = Field(
        10, ge=0, le=7 * 86_400, description="how long it then may make only the calls it was seen to make before"
    )
    share: float = Field(0.5, gt=0, le=1, description="of its processors and processes, until it is let go in full")
    look_back_hours: float = Field(
        72, gt=0, le=24 * 366, description="how far back before the incident telemetry tells what is of use"
    )
    most: int = Field(1, ge=0, description="recoveries of one agent without a person; 0: each waits for one")
    within_hours: float = Field(24, gt=0, le=24 * 366, description="the time within which they are counted")


class ApprovalRule(_Section):
    """One line of `approvals.rules`. The first rule that matches a step decides; containment never waits."""

    actions: tuple[str, ...] = Field(("*",), description="action ids; `*` and `?` match as in file names")
    phases: tuple[Phase, ...] = Field((), description="phases of the incident; none: any")
    drills: bool | None = Field(None, description="only drills, or only real incidents; none: both")
    quorum: int = Field(1, ge=0, le=16, description="grants needed; 0: the step does not wait")
    approvers: tuple[str, ...] = Field((), description="user names that may answer; none: anybody")
    separate: bool = Field(True, description="whoever asked, or contained the agent, may not grant it")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.approvers and len(set(self.approvers)) < self.quorum:
            raise ValueError(f"quorum {self.quorum} of {len(set(self.approvers))} approvers can never be reached")
        return self


class AnswerSettings(_Section):
    """One of `approvals.channels`: who signs, and who is who there."""

    secret_file: Path = Field(description="the channel's signing secret, mode 0600")
    people: dict[str, str] = Field(description="the channel's user id → user name, as `approvers` names people")


class ApprovalSettings(_Section):
    """`approvals:`: which steps wait for a person. Where no rule matches, those whose action asks for consent."""

    minutes: float = Field(15, gt=0, le=24 * 60, description="how long a question stands, and then a grant")
    rules: tuple[ApprovalRule, ...] = ()
    prefect: Literal["off", "shared", "codes"] = Field(
        "off",
        description="questions can be answered in Prefect, whose login is shared: not at all, as the user"
        " `prefect:shared`, or by a person with a one-time code of `clawback approvals code`",
    )
    listen: str = Field(
        "127.0.0.1:8471", description="address where `clawback up` takes the channels' signed callbacks"
    )
    channels: dict[str, AnswerSettings] = Field(
        default_factory=dict, description="slack, teams or pagerduty → whose signed callbacks are taken for answers"
    )


class DriftSettings(_Section):
    """`drift:`: whether what was verified still holds."""

    interval_seconds: float = Field(60.0, ge=1, description="every verified containment and eradication is looked at")
    closed_hours: float = Field(24.0, ge=0, le=24 * 90, description="for how long after its incident was closed")


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
