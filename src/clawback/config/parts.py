"""Settings of what runs on a host: the core, the gateway, watch, the responder, Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from clawback.config.section import Section
from clawback.model import InferenceKind

__all__ = [
    "CoreSettings",
    "GatewaySettings",
    "InferenceSettings",
    "PrefectSettings",
    "ReleaseSettings",
    "ResponderSettings",
    "WatchSettings",
]


class ReleaseSettings(Section):
    """`core.release:`: who may lift a hold, beside `core.allow`."""

    separation: bool = Field(False, description="the user id that ordered a hold may not lift it, root included")
    approvers: tuple[int, ...] = Field((), description="user ids that may lift holds; empty: all that may call release")


class CoreSettings(Section):
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


class InferenceSettings(Section):
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


class GatewaySettings(Section):
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


class WatchSettings(Section):
    """`watch:`: detectors and reflexes."""

    contained_per_minute: int = Field(
        60, ge=0, description="agents that automation may contain in any minute without a person; 0: any number"
    )


class ResponderSettings(Section):
    """`responder:`: who runs playbooks."""

    embedded: bool = Field(
        True, description="watch has a responder of its own; else only `clawback worker` processes run playbooks"
    )


class PrefectSettings(Section):
    """`prefect:`: with no `api_url`, `clawback up` runs a server of its own on `port` (0: any free one)."""

    api_url: str | None = None
    port: int = Field(0, ge=0, le=65_535)
    drills: dict[str, str] = Field(
        default_factory=dict, description="drill → cron, its first schedule; after that people change it in Prefect"
    )
    database_url: str = Field("", description="of the embedded server; empty: SQLite in the state folder")
