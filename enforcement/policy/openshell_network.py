"""Reads the `network_policies` of an OpenShell document or a NemoClaw preset."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import combinations

from clawback.enforcement.policy.endpoints import PROTOCOLS, Endpoint, EndpointRule, RequestMatch
from clawback.enforcement.policy.globs import host_glob
from clawback.enforcement.policy.names import AmbiguousError, address_of, normal_host
from clawback.enforcement.policy.network import wildcard_too_wide
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.policy.requests import checked_glob, matchers, preset
from clawback.enforcement.policy.types import Effect

__all__ = ["endpoint_rules"]

_RULE = ("name", "endpoints", "binaries")
_PLAIN = ("host", "port", "ports", "allowed_ips", "protocol", "tls")
_REQUESTS = ("path", "enforcement", "access", "rules", "deny_rules", "allow_encoded_slash")
_CREDENTIALS = (
    "credential_binding", "request_body_credential_rewrite", "websocket_credential_rewrite",
    "allow_uninspected_credentials", "credential_signing", "signing_service", "signing_region",
)  # fmt: skip
_OPTIONS = ("persisted_queries", "graphql_persisted_queries", "graphql_max_body_bytes", "mcp", "json_rpc")
_MCP_VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
_MOST_ENDPOINTS = 512
_NEVER = tuple(
    map(ipaddress.ip_network, ("127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/32", "::1/128", "::/128", "fe80::/10"))
)
_WIDEST = {4: 8, 6: 7}  # prefix lengths: 10.0.0.0/8 and fc00::/7 are what whole private networks take


def endpoint_rules(item: Item, effects: list[Effect]) -> tuple[EndpointRule, ...]:
    """The rules in their order; what is accepted and not acted on is added to `effects`."""
    rules = []
    placed: list[tuple[Item, Endpoint]] = []
    for key, entry in item.entries(limit=256).items():
        if key.startswith("_provider_"):
            raise entry.wrong("the name is kept for what providers add", hint="name the rule otherwise")
        found = entry.mapping(_RULE)
        endpoints = []
        for place in found["endpoints"].list(limit=64) if "endpoints" in found else ():
            endpoint = _endpoint(place, effects)
            endpoints.append(endpoint)
            placed.append((place, endpoint))
        binaries = tuple(map(_binary, found["binaries"].list(limit=256))) if "binaries" in found else ()
        effects.append(_effect(entry, endpoints, binaries))
        name = found["name"].text(limit=128) if "name" in found else key
        rules.append(EndpointRule(key=key, name=name, endpoints=tuple(endpoints), binaries=binaries))
    if len(placed) > _MOST_ENDPOINTS:
        raise item.wrong(f"{len(placed)} endpoints, at most {_MOST_ENDPOINTS}", hint="join or drop some")
    _agree(placed)
    return tuple(rules)


def _effect(entry: Item, endpoints: list[Endpoint], binaries: tuple[str, ...]) -> Effect:
    if not binaries:
        return Effect(entry.key, "gateway", "allows nothing: without binaries a rule matches no program")
    how = f"endpoints: {len(endpoints)}, programs: {len(binaries)}"
    lax = [endpoint.host or "any host" for endpoint in endpoints if endpoint.allow and not endpoint.enforce]
    if lax:
        how += f"; what breaks the rules for {', '.join(lax[:4])} is logged and let through: enforcement is not enforce"
    return Effect(entry.key, "gateway", how)


def _binary(item: Item) -> str:
    found = item.mapping(("path", "harness"), required=("path",))
    path = found["path"]
    text = path.text(limit=4096)
    if "harness" in found:
        found["harness"].boolean()  # of older versions, without a meaning
    if not text.startswith("/") or ".." in text.split("/"):
        raise path.wrong("not an absolute path", hint="the program's real path, or a glob such as /usr/bin/python3*")
    return checked_glob(path, "/")


def _endpoint(item: Item, effects: list[Effect]) -> Endpoint:
    found = item.mapping((*_PLAIN, *_REQUESTS, *_CREDENTIALS, *_OPTIONS))
    protocol = found["protocol"].text(limit=20) if "protocol" in found else ""
    if protocol and protocol not in PROTOCOLS:
        why = "nothing inspects SQL" if protocol == "sql" else f"protocol {protocol[:20]!r} is not known"
        raise found["protocol"].wrong(why, hint=f"one of: {', '.join(PROTOCOLS)}; `tcp` looks at host and port alone")
    addresses = _addresses(found["allowed_ips"]) if "allowed_ips" in found else ()
    if "host" not in found and not addresses:
        raise item.wrong("no host", hint="name one, or the networks in allowed_ips")
    tls = found["tls"].one_of(("skip", "terminate", "passthrough")) if "tls" in found else ""
    tls = {"terminate": "", "passthrough": "skip"}.get(tls, tls)
    if tls == "skip" and protocol not in ("", "tcp"):
        raise found["tls"].wrong(f"a {protocol} request cannot be seen inside TLS that is not opened", hint="drop tls")
    if protocol == "tcp":
        _nothing_of(found, (*_REQUESTS, *_CREDENTIALS, *_OPTIONS), "protocol tcp looks at no requests")
        if "host" not in found:
            raise item.wrong("protocol tcp needs a host", hint="name it")
    effects.extend(
        Effect(found[key].key, "", "the agent's credentials come by its launch, not by endpoint")
        for key in _CREDENTIALS
        if key in found
    )
    access, allow, deny = _requests(item, found, protocol)
    mcp = found["mcp"].mapping(
        ("versions", "max_body_bytes", "strict_tool_names", "allow_all_known_mcp_methods")
    ) if "mcp" in found else {}  # fmt: skip
    everything = "allow_all_known_mcp_methods" in mcp and mcp["allow_all_known_mcp_methods"].boolean()
    if protocol == "mcp" and not allow and not everything:
        raise item.wrong("an mcp endpoint needs rules", hint="or mcp.allow_all_known_mcp_methods: true")
    if "strict_tool_names" in mcp and not mcp["strict_tool_names"].boolean():
        raise mcp["strict_tool_names"].wrong("too wide: tool names of any characters", hint="leave it out")
    return Endpoint(
        host=_host(found["host"]) if "host" in found else "",
        ports=_ports(item, found),
        path=_path(found["path"]) if "path" in found else "",
        allowed_ips=addresses,
        protocol=protocol,
        tls=tls,
        enforce="enforcement" in found and found["enforcement"].one_of(("enforce", "audit")) == "enforce",
        access=access,
        allow=allow,
        deny=deny,
        encoded_slash="allow_encoded_slash" in found and found["allow_encoded_slash"].boolean(),
        all_mcp_methods=everything,
        mcp_versions=_versions(mcp) if protocol == "mcp" else (),
        max_body=_max_body(found, mcp),
    )


def _requests(
    item: Item, found: dict[str, Item], protocol: str
) -> tuple[str, tuple[RequestMatch, ...], tuple[RequestMatch, ...]]:
    """The access preset's name, what is allowed and what is denied."""
    access = found["access"].one_of(("read-only", "read-write", "full")) if "access" in found else ""
    if access and "rules" in found:
        raise found["rules"].wrong("both access and rules", hint="keep one of them")
    if protocol in ("", "tcp"):
        # `full` is what such an endpoint allows anyway; anything narrower would have no effect.
        if access not in ("", "full"):
            raise found["access"].wrong("has no effect without a protocol: all is allowed", hint="add `protocol: rest`")
        _nothing_of(found, ("rules", "deny_rules"), "without a protocol requests are not looked at")
        return access, (), ()
    if access and protocol in ("mcp", "json-rpc"):
        raise found["access"].wrong(f"{protocol} has no access presets", hint="write rules")
    if not access and "rules" not in found and protocol != "mcp":
        raise item.wrong(f"a {protocol} endpoint needs rules or access", hint="such as `access: read-only`")
    allow = preset(protocol, access) if access else ()
    if "rules" in found:
        allow = matchers(found["rules"], protocol, allow=True)
        if not allow:
            raise found["rules"].wrong("no rules: nothing would be allowed", hint="add one, or drop the endpoint")
    deny = matchers(found["deny_rules"], protocol, allow=False) if "deny_rules" in found else ()
    return access, allow, deny


def _nothing_of(found: dict[str, Item], keys: Iterable[str], why: str) -> None:
    for key in keys:
        if key in found:
            raise found[key].wrong(why, hint="drop the key, or name a protocol that has requests")


def _ports(item: Item, found: dict[str, Item]) -> tuple[int, ...]:
    if "port" in found and "ports" in found:
        raise found["ports"].wrong("both port and ports", hint="keep one of them")
    if "port" in found:
        return (found["port"].integer(1, 65_535),)
    ports = tuple(entry.integer(1, 65_535) for entry in found["ports"].list(limit=64)) if "ports" in found else ()
    if not ports:
        raise item.wrong("no port", hint="add `port: 443`")
    return ports


def _path(item: Item) -> str:
    text = item.text(limit=1024)
    if text != "**" and not text.startswith("/"):
        raise item.wrong("not a path", hint="such as /v1/**")
    return "" if text in ("**", "/**") else checked_glob(item, "/")


def _versions(mcp: dict[str, Item]) -> tuple[str, ...]:
    if "versions" not in mcp:
        return ("2025-11-25",)
    versions = tuple(entry.one_of(_MCP_VERSIONS) for entry in mcp["versions"].list(limit=8))
    if not versions:
        raise mcp["versions"].wrong("no version: the endpoint would match nothing", hint="name one, or drop the key")
    return versions


def _max_body(found: dict[str, Item], mcp: dict[str, Item]) -> int:
    if "max_body_bytes" in mcp:
        return mcp["max_body_bytes"].integer(1, 1 << 24)
    if "json_rpc" in found:
        options = found["json_rpc"].mapping(("max_body_bytes",))
        return options["max_body_bytes"].integer(1, 1 << 24) if options else 65_536
    return found["graphql_max_body_bytes"].integer(1, 1 << 24) if "graphql_max_body_bytes" in found else 65_536


def _host(item: Item) -> str:
    written = item.text(limit=253)
    if "*" not in written:
        if "/" in written or (":" in written and written.count(":") < 2):
            raise item.wrong("a host, not a URL, and without a port", hint="put the port in its own key")
        try:
            host = normal_host(written)
        except AmbiguousError as error:
            raise item.wrong(f"not a host: {error}", hint="such as api.example.com") from None
        if address_of(host) is not None and host != written.lower():
            raise item.wrong("an address in an unusual spelling", hint=f"write {host}")
        return host
    first, *others = written.split(".")
    wrong_first = "**" in first and first != "**"
    if wrong_first or any("*" in label and label != "*" for label in others):
        raise item.wrong(
            "a wildcard stands within the first label or is a whole later one", hint="such as *.example.com"
        )
    try:
        # Of what it may match an example, so that the fixed labels are read as those of any host.
        example = normal_host(".".join(label.replace("**", "x").replace("*", "x") for label in (first, *others)))
    except AmbiguousError as error:
        raise item.wrong(f"not a host: {error}", hint="such as *.example.com") from None
    if not example.isascii() or not written.isascii():
        raise item.wrong("a wildcard beside letters that are not ASCII", hint="write those labels in punycode")
    if len(others) < 2 or "*" in others[-1] or "*" in others[-2] or wildcard_too_wide(".".join(others)):
        raise item.wrong(f"too wide: everything below {'.'.join(others)}", hint="name the organisation's own domain")
    return written.lower().removesuffix(".")


def _addresses(item: Item) -> tuple[str, ...]:
    networks = []
    for entry in item.list(limit=64):
        text = entry.text(limit=64)
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise entry.wrong(f"not a network: {error}", hint="such as 10.1.0.0/16") from None
        if network.prefixlen < _WIDEST[network.version]:
            raise entry.wrong("too wide: more than one private network", hint="name the networks that are meant")
        if any(network.version == never.version and network.overlaps(never) for never in _NEVER):
            raise entry.wrong("loopback, link-local and unspecified addresses are never reached", hint="drop it")
        networks.append(str(network))
    if not networks:
        raise item.wrong("no networks: the endpoint would match nothing, or all", hint="name them, or drop the key")
    return tuple(networks)


def _agree(placed: list[tuple[Item, Endpoint]]) -> None:
    """Endpoints that one host and port can match must be read in one way, whichever program asks."""
    by_port: dict[int, list[tuple[Item, Endpoint]]] = {}
    for place, endpoint in placed:
        for port in endpoint.ports:
            by_port.setdefault(port, []).append((place, endpoint))
    for port, those in by_port.items():
        for (_, one), (place, other) in combinations(those, 2):
            if one.tls == other.tls and one.allowed_ips == other.allowed_ips:
                continue
            if one.host and other.host and _meet(one.host, other.host):
                key = "tls" if one.tls != other.tls else "allowed_ips"
                raise place.wrong(
                    f"{other.host}:{port} also stands elsewhere with another {key}", hint="write the same in both"
                )


def _meet(one: str, other: str) -> bool:
    """Whether a host can match both; for two wildcards as far as can be seen."""
    return one == other or bool(host_glob(one).fullmatch(other) or host_glob(other).fullmatch(one))
