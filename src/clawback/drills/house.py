"""The settings of the house that a drill is rehearsed in: everything in its own state folder, servers on loopback."""

from __future__ import annotations

from pathlib import Path

import yaml

from clawback import config
from clawback.drills.declaration import Drill
from clawback.drills.surroundings import Sink
from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao

__all__ = ["write_settings"]


def write_settings(drill: Drill, state: Path, bao: OpenBao, aws: Ministack) -> tuple[config.Settings, Path]:
    """The settings, and the file that they are in."""
    resolve = dict.fromkeys(("vault.internal", "aws.internal", drill.world.tools or ""), "127.0.0.1")
    resolve[drill.world.sink or ""] = Sink.address
    file = state / "clawback.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "state": str(state),
                "drill": True,
                "core": {"cgroup": f"clawback-drill-{state.name}", "uid_base": unclaimed_uid_base()},
                "gateway": {
                    "resolve": {name: address for name, address in resolve.items() if name},
                    "inference": [{"host": "cloud.test", "kind": "cloud"}],
                    "allow_private": ["127.0.0.1/32", f"{Sink.address}/32"],
                },
                # A rehearsal has no time to watch for long.
                "recovery": {"observe_seconds": 0.5, "restricted_seconds": 0.5},
                "vault": {
                    "address": bao.address,
                    "token_file": str(bao.token_file),
                    "audit_log": str(bao.audit_log),
                },
                "aws": {
                    "region": aws.region,
                    "endpoint_url": aws.endpoint_url,
                    "credentials_file": str(aws.credentials_file),
                },
            }
        )
    )
    return config.load(file), file
