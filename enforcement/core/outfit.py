"""What an agent is given for its way out: the gateway's certificate to trust, and placeholders instead of secrets.

A placeholder is worthless outside the gateway, which puts the value in its place on the way to the hosts that the
credential is for, and only there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.specs import read_secrets
from clawback.enforcement.gateway.given import BUNDLE, PLACEHOLDER
from clawback.enforcement.policy.names import AmbiguousError, normal_host
from clawback.enforcement.policy.network import wildcard_too_wide
from clawback.errors import InvalidInput, NotFound, Refused
from clawback.model import CredentialRef, LaunchSpec

__all__ = ["caller", "destined", "outfitted", "resolve", "withheld"]

_TRUST = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO",
)  # fmt: skip


def outfitted(spec: LaunchSpec, state: Path, *, network: bool) -> LaunchSpec:
    """The order as it is carried out, not as it is kept: what it says of these variables itself comes first.

    `InvalidInput` for a placeholder that could go nowhere, or too far.
    """
    for ref in spec.credentials:
        if ref.delivery == "placeholder":
            _check_hosts(ref)
    added: dict[str, str] = {}
    readable = spec.readable
    bundle = state.absolute() / BUNDLE
    if network and bundle.is_file():
        added |= dict.fromkeys(_TRUST, str(bundle))
        readable = (*readable, str(bundle))
    added |= {
        ref.variable: PLACEHOLDER + ref.name
        for ref in spec.credentials
        if ref.delivery == "placeholder" and ref.variable
    }
    return dataclasses.replace(spec, readable=readable, environment=added | spec.environment)


def _check_hosts(ref: CredentialRef) -> None:
    where = f"credential {ref.name!r}: hosts"
    if not ref.hosts:
        raise InvalidInput(f"{where}: none", hint="name the hosts that its value is for, such as api.example.com")
    for text in ref.hosts:
        host, _, port = text.removeprefix("http://").removeprefix("https://").partition(":")
        below = host.removeprefix("*.")
        try:
            normal_host(below)
        except AmbiguousError as error:
            raise InvalidInput(f"{where}: {text!r}: {error}", hint="HOST[:PORT], or http://HOST[:PORT]") from None
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
            raise InvalidInput(f"{where}: {text!r}: not a port", hint="a number up to 65535")
        if below != host and wildcard_too_wide(below):
            raise InvalidInput(f"{where}: {text!r}: too wide", hint="name the organisation's own domain")


def withheld(spec: LaunchSpec, secrets: Mapping[str, str]) -> dict[str, str]:
    """The secrets as the agent gets them under /run/secrets."""
    kept = {ref.name for ref in spec.credentials if ref.delivery == "placeholder"}
    return {name: PLACEHOLDER + name if name in kept else value for name, value in secrets.items()}


def caller(parts: Parts, instance: str) -> Entry:
    """The running agent that this is the instance of. `NotFound`."""
    entry = next((one for one in parts.entries.copy().values() if one.box.instance == instance), None)
    if entry is None or not entry.running:
        raise NotFound("the agent does not run")
    return entry


def destined(parts: Parts, instance: str) -> tuple[str, ...]:
    """The hosts of all of a running agent's placeholders."""
    spec = caller(parts, instance).spec
    refs = spec.credentials if spec is not None else ()
    return tuple(dict.fromkeys(host for ref in refs if ref.delivery == "placeholder" for host in ref.hosts))


def resolve(parts: Parts, instance: str, name: str) -> tuple[str, tuple[str, ...]]:
    """What a running agent's placeholder stands for at this moment, and for which hosts.

    Read from the store each time, so that what was replaced or taken away is so at once. `Refused` while the agent is
    held; `NotFound` where it has no such placeholder. `name` may be a credential's or its variable's.
    """
    entry = caller(parts, instance)
    if parts.hold(entry.box.agent) is not None:
        raise Refused("the agent is held")
    if entry.spec is None:
        raise NotFound("the agent has no launch record")
    for ref in entry.spec.credentials:
        if ref.delivery == "placeholder" and name in {ref.name, ref.variable}:
            one = dataclasses.replace(entry.spec, credentials=(ref,))
            values, _ = read_secrets(parts.parameters.state / "secrets", one)
            value = values[ref.name].removesuffix("\n")
            if not value or not value.isascii() or not value.isprintable():
                raise InvalidInput(f"the credential {ref.name!r} is nothing that can stand in a header")
            return value, ref.hosts
    raise NotFound("the agent has no such placeholder")
