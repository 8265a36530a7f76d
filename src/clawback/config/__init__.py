"""Settings: `clawback.yaml`, then `CLAWBACK_*` over it (`CLAWBACK_VAULT__ADDRESS` for `vault.address`).

The file is the one named by `--config` or `CLAWBACK_CONFIG`, else `./clawback.yaml`, else
`/etc/clawback/clawback.yaml`, else none: every key has a default that works on one machine. Unknown keys are errors.
"""

from clawback.config.issuers import AwsSettings, OidcSettings, VaultSettings
from clawback.config.parts import (
    CoreSettings,
    GatewaySettings,
    InferenceSettings,
    PrefectSettings,
    ReleaseSettings,
    ResponderSettings,
    WatchSettings,
)
from clawback.config.people import (
    AnswerSettings,
    ApprovalRule,
    ApprovalSettings,
    ChannelSettings,
    JiraSettings,
    NotifySettings,
)
from clawback.config.response import DriftSettings, EvidenceSettings, RecoverySettings
from clawback.config.section import is_private
from clawback.config.settings import Settings, load

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
