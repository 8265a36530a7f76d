"""An agent reaches for a secret not its own: a decoy, a credential file, a Vault path, the metadata service."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

from clawback.detector import Hit, Stateless, detector
from clawback.model import FileActivity, HttpActivity, Level, NetworkActivity, Severity

__all__ = ["DETECTOR"]

# Credential files by the documented default places of the tools that keep them.
_SECRET_FILE = re.compile(
    r"""
      /\.(?:ssh|aws|azure|gnupg|kube|docker|config/gcloud|config/gh|openclaw/credentials)(?:/|$)
    | /\.(?:netrc|pgpass|git-credentials|vault-token|npmrc|pypirc|env)$
    | ^/etc/(?:shadow|gshadow|sudoers|ssl/private/|ssh/ssh_host_|kubernetes/|clawback/)
    | ^/(?:var/)?run/secrets/
    | ^/proc/(?:1|\d+)/(?:environ|mem)$
    | /id_(?:rsa|ecdsa|ed25519)$
    """,
    re.VERBOSE,
)
# KV version 2 data and metadata, and dynamic credentials, under any mount of Vault's HTTP API.
_VAULT_SECRET = re.compile(r"^/v1/(?:[^/]+/)+(?:data|metadata|creds|sts|static-creds)/")
# Instance metadata of the large clouds and of containers there; all of them hand out credentials.
_METADATA = frozenset({"169.254.169.254", "169.254.170.2", "fd00:ec2::254", "metadata.google.internal"})


@detector(
    id="secrets.outside-allow-list",
    title="Secret read outside the agent's allow-list",
    reads={FileActivity, HttpActivity, NetworkActivity},
    severity=Severity.CRITICAL,
    technique="T1552",
    reflex=Level.ISOLATE,
    attack=("T1552", "T1552.001", "T1552.005", "T1555.006"),
    atlas=("AML.T0055", "AML.T0098"),
    asi=("ASI03", "ASI10"),
    seed_asi=("ASI-02",),
)
def secret_read(event: FileActivity | HttpActivity | NetworkActivity, _memory: Stateless) -> Hit | None:
    """One event is enough. A decoy has no legitimate reader, so opening it counts even where it succeeds; everything
    else counts only where it was refused, for what the policy allows is the agent's own. A 403 by Vault itself is not
    enough: an expired token gets one too.
    """
    if isinstance(event, FileActivity):
        return _file(event)
    if not event.blocked:
        return None
    if event.host.lower().rstrip(".") in _METADATA:
        target = f"{event.host}:{event.port}"
        return Hit(
            resource=target,
            summary=f"refused connection to the instance metadata service at {target}",
            attempts=(("connect", target),),
        )
    if isinstance(event, HttpActivity):
        return _vault(event)
    return None


def _file(event: FileActivity) -> Hit | None:
    if event.access == "canary":
        return Hit(
            resource=event.path,
            summary=f"{'refused to open' if event.blocked else 'opened'} the decoy {event.path}",
            attempts=(("open", event.path),),
        )
    if event.blocked and _SECRET_FILE.search(posixpath.normpath(event.path)):
        return Hit(
            resource=event.path,
            summary=f"refused {event.access or 'open'} of the credential file {event.path}",
            attempts=(("open", event.path),),
        )
    return None


def _vault(event: HttpActivity) -> Hit | None:
    path = event.path.partition("?")[0]  # a query may carry values
    if not _VAULT_SECRET.match(posixpath.normpath(unquote(path))):
        return None
    return Hit(
        resource=f"{event.host}:{event.port}{path}",
        summary=f"refused {event.method} of the Vault secret {path} at {event.host}:{event.port}",
        attempts=(("http", f"{event.method} http://{event.host}:{event.port}{path}"),),
    )


DETECTOR = secret_read
