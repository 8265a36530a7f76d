"""OpenShell's network rules, typed: which programs may reach which endpoints, and with which requests.

Any matching rule allows, any matching deny matcher wins over all. What matches no rule is denied.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PROTOCOLS", "Endpoint", "EndpointRule", "RequestMatch"]

PROTOCOLS = ("tcp", "rest", "websocket", "graphql", "mcp", "json-rpc")
"""What an endpoint may name; `sql` is in OpenShell's schema and nothing can inspect it."""

Values = tuple[tuple[str, tuple[str, ...]], ...]
"""Name → globs of which one must match; sorted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMatch:
    """One matcher of requests; all that is not empty must match. Globs as in `globs`.

    method          HTTP method (upper case), for websocket `GET` or `WEBSOCKET_TEXT`, for mcp and json-rpc their
                    method (mcp: a glob within `tools/`); `*` or empty is any
    path            of the URL, decoded, a glob with `/`; for all but graphql, mcp and json-rpc
    query           rest, websocket: parameter → globs with `.`. To allow, the parameter must be there and each of its
                    values match; to deny, one value of each is enough
    operation       graphql: `query`, `mutation` or `subscription`, or empty for any
    operation_name  graphql: a glob
    fields          graphql: globs of top-level fields. To allow, every field must match; to deny, one is enough
    params          mcp: parameter → globs with `.`; `name` is the tool of `tools/call`
    """

    method: str = "*"
    path: str = ""
    query: Values = ()
    operation: str = ""
    operation_name: str = ""
    fields: tuple[str, ...] = ()
    params: Values = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One destination.

    host            normal name or address, or a glob with `.`; empty: any host whose addresses are in `allowed_ips`
    ports           at least one
    path            glob of the paths that this endpoint is for, empty for all; `/v1/**` is for `/v1` too. The most
                    specific endpoint counts
    allowed_ips     networks (`10.0.0.0/8`) in which every address of the host must lie; empty: any public one
    protocol        one of `PROTOCOLS`, or empty: only host and port are looked at
    tls             `skip`: never opened. Empty: opened where requests must be seen
    enforce         false (`audit`): what breaks `allow` or `deny` is logged and let through
    allow, deny     matchers (an `access` preset is written out in `allow`); `allow` is empty without `protocol`, and
                    for an mcp endpoint whose every core method is allowed
    encoded_slash   `%2F` in a path is accepted
    """

    host: str
    ports: tuple[int, ...]
    path: str = ""
    allowed_ips: tuple[str, ...] = ()
    protocol: str = ""
    tls: str = ""
    enforce: bool = False
    access: str = ""
    allow: tuple[RequestMatch, ...] = ()
    deny: tuple[RequestMatch, ...] = ()
    encoded_slash: bool = False
    all_mcp_methods: bool = False
    mcp_versions: tuple[str, ...] = ()
    max_body: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRule:
    """Every listed program may reach every listed endpoint; none without programs.

    key        in the policy, unique there: decisions are logged by it
    binaries   globs with `/` over the real path of the connecting program and of its ancestors, as seen inside
    """

    key: str
    name: str
    endpoints: tuple[Endpoint, ...] = ()
    binaries: tuple[str, ...] = ()
