"""OpenShell's rules: which program, where to, with which request; what is only watched; what is looked into."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.policy.engine import Engine
from clawback.enforcement.policy.loader import load

TEXT = """\
version: 1
network_policies:
  api:
    endpoints:
      - host: api.test
        port: 443
        protocol: rest
        enforcement: enforce
        rules:
          - {allow: {method: GET, path: "/v1/**"}}
          - {allow: {method: POST, path: "/v1/items", query: {dry: "1"}}}
        deny_rules:
          - {method: "*", path: "/v1/secret/**"}
          - {method: GET, path: "/v1/search", query: {q: "*password*"}}
    binaries: [{path: /usr/bin/curl}, {path: "/opt/tools/*"}]
  wild:
    endpoints:
      - {host: "*.wild.test", port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: "*.wild.test", port: 8443}
    binaries: [{path: /usr/bin/curl}]
  watched:
    endpoints:
      - {host: watch.test, port: 80, protocol: rest, access: read-only}
    binaries: [{path: /usr/bin/curl}]
  private:
    endpoints:
      - {host: inside.test, port: 5432, protocol: tcp, allowed_ips: ["10.1.0.0/16"]}
      - {port: 9000, allowed_ips: ["10.2.0.0/16"]}
    binaries: [{path: /usr/bin/psql}]
  paths:
    endpoints:
      - {host: deep.test, port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: deep.test, port: 443, path: "/write/**", protocol: rest, enforcement: enforce, access: full}
    binaries: [{path: /usr/bin/curl}]
  slashes:
    endpoints:
      - host: git.test
        port: 443
        protocol: rest
        enforcement: enforce
        allow_encoded_slash: true
        rules: [{allow: {method: GET, path: "/projects/*"}}]
        deny_rules: [{method: GET, path: "/projects/secret/**"}]
    binaries: [{path: /usr/bin/curl}]
  graph:
    endpoints:
      - host: graph.test
        port: 443
        protocol: graphql
        enforcement: enforce
        rules:
          - {allow: {operation_type: query}}
          - {allow: {operation_type: mutation, fields: [addComment]}}
        deny_rules: [{operation_type: query, fields: [secrets]}]
    binaries: [{path: /usr/bin/curl}]
  tools:
    endpoints:
      - host: mcp.test
        port: 443
        protocol: mcp
        enforcement: enforce
        rules:
          - {allow: {method: initialize}}
          - {allow: {method: tools/call, tool: {any: [search, "read_*"]}}}
        deny_rules: [{method: tools/call, tool: read_secrets}]
    binaries: [{path: /usr/bin/curl}]
"""
ENGINE = Engine(load(TEXT, where="test").network)
CURL = (("/usr/bin/curl", "/usr/bin/bash"),)


def ask(host, port=443, method="GET", path="/", programs=CURL, body=None):
    return ENGINE.decide(host=host, port=port, method=method, path=path, programs=programs, body=body)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (("api.test", 443, "GET", "/v1/a/b"), (True, "api", "path")),
        (("API.test.", 443, "GET", "/v1/a"), (True, "api", "path")),
        (("api.test", 443, "POST", "/v1/items?dry=1"), (True, "api", "path")),
        (("api.test", 443, "POST", "/v1/items?dry=1&dry=0"), (False, "api", "path")),
        (("api.test", 443, "POST", "/v1/items"), (False, "api", "path")),
        (("api.test", 443, "DELETE", "/v1/a"), (False, "api", "method")),
        (("api.test", 443, "GET", "/v2/a"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/secret/a"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/%73ecret/a"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/x/..%2fsecret/a"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/search?q=my%20password%20x"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/search?q=harmless&q=password"), (False, "api", "path")),
        (("api.test", 443, "GET", "/v1/search?q=harmless"), (True, "api", "path")),
        (("api.test", 444, "GET", "/v1/a"), (False, "", "destination")),
        (("a.wild.test", 443, "HEAD", "/x"), (True, "wild", "method")),
        (("a.wild.test", 443, "POST", "/x"), (False, "wild", "method")),
        (("a.b.wild.test", 443, "GET", "/x"), (False, "", "destination")),
        (("wild.test", 443, "GET", "/x"), (False, "", "destination")),
        (("a.wild.test", 8443, "POST", "/x"), (True, "wild", "destination")),
        (("deep.test", 443, "POST", "/write/x"), (True, "paths", "destination")),
        (("deep.test", 443, "POST", "/read/x"), (False, "paths", "method")),
        (("git.test", 443, "GET", "/projects/a%2Fb"), (True, "slashes", "path")),
        (("git.test", 443, "GET", "/projects/secret%2Fb"), (False, "slashes", "path")),
        (("api.test", 443, "CONNECT", ""), (True, "api", "destination")),
        (("1.2.3.4", 9000, "CONNECT", ""), (False, "private", "binary")),
    ],
)
def test_decisions(question, expected):
    verdict = ask(*question)
    assert (verdict.allowed, verdict.rule, verdict.level) == expected, verdict


@pytest.mark.parametrize(
    ("programs", "allowed"),
    [
        ((("/usr/bin/curl",),), True),
        ((("/opt/tools/x",),), True),
        ((("/opt/tools/x/y",),), False),
        ((("/usr/bin/wget", "/usr/bin/curl"),), True),
        ((("/usr/bin/curl",), ("/usr/bin/nc",)), False),
        ((("/usr/bin/curl (deleted)",),), False),
        ((), False),
    ],
)
def test_all_that_hold_the_connection_are_or_come_from_a_named_program(programs, allowed):
    assert ask("api.test", path="/v1/a", programs=programs).allowed is allowed


def test_an_unknown_program_is_asked_for_and_else_denied():
    verdict = ask("api.test", path="/v1/a", programs=None)
    assert (verdict.allowed, verdict.wants_caller, verdict.level) == (False, True, "binary")
    assert ask("nobody.test", programs=None).wants_caller is False


def test_what_is_only_watched_is_let_through_and_said():
    assert ask("watch.test", 80).audit is False
    verdict = ask("watch.test", 80, "DELETE", "/x")
    assert (verdict.allowed, verdict.audit) == (True, True)
    assert "would be denied" in verdict.reason


def test_tunnels_are_looked_into_where_requests_matter():
    assert ask("api.test", method="CONNECT").inspect is True
    assert ask("a.wild.test", 8443, "CONNECT").inspect is False
    psql = (("/usr/bin/psql",),)
    verdict = ask("inside.test", 5432, "CONNECT", programs=psql)
    assert (verdict.allowed, verdict.inspect, verdict.networks) == (True, False, ("10.1.0.0/16",))
    assert ask("anything.test", 9000, "CONNECT", programs=psql).networks == ("10.2.0.0/16",)


def graph(text: str, name: str = "") -> bytes:
    return json.dumps({"query": text} | ({"operationName": name} if name else {})).encode()


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (graph("{ user { name } }"), True),
        (graph("query Q { a: user { name } }"), True),
        (graph("{ secrets }"), False),
        (graph("{ harmless: secrets }"), False),
        (graph("{ user { name } secrets }"), False),
        (graph("{ ... on Query { secrets } }"), False),
        (graph("{ ...F } fragment F on Query { secrets }"), False),
        (graph("{ ...F } fragment F on Query { ...F }"), False),
        (graph("mutation { addComment(x: 1) { id } }"), True),
        (graph("mutation { addComment(x: 1) { id } deleteAll }"), False),
        (graph("query A { user } mutation B { deleteAll }", "B"), False),
        (graph("query A { user } mutation B { deleteAll }", "A"), True),
        (graph("query A { user } mutation B { deleteAll }"), False),
        (graph("subscription { x }"), False),
        (graph("{" * 5000), False),
        (graph("{ a" + " b" * 5000 + "}"), False),
        (b'[{"query": "{ user }"}, {"query": "mutation { deleteAll }"}]', False),
        (b'{"query": "{ user }", "query": "mutation { deleteAll }"}', False),
        (b'{"query": "{ user }", "Query": "mutation { deleteAll }"}', False),
        (b'{"extensions": {"persistedQuery": {}}}', False),
        (b"[" * 10_000, False),
        (b"\xff", False),
        (b"", False),
    ],
)  # fmt: skip
def test_graphql_is_read_for_what_it_does(body, allowed):
    assert ask("graph.test", method="POST", path="/graphql", body=body).allowed is allowed


def call(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (call("initialize"), True),
        (call("tools/call", name="search"), True),
        (call("tools/call", name="read_file", arguments={"path": "x"}), True),
        (call("tools/call", name="read_secrets"), False),
        (call("tools/call", name="delete"), False),
        (call("tools/call"), False),
        (call("tools/list"), False),
        (b"[" + call("initialize") + b"," + call("tools/call", name="delete") + b"]", False),
        (b'{"jsonrpc":"2.0","method":"initialize","method":"tools/list"}', False),
        (b'{"jsonrpc":"1.0","method":"initialize"}', False),
        (b"[]", False),
        (b"nothing", False),
    ],
)
def test_mcp_is_read_for_its_tools(body, allowed):
    assert ask("mcp.test", method="POST", path="/mcp", body=body).allowed is allowed


def test_content_is_asked_for_first():
    verdict = ask("mcp.test", method="POST", path="/mcp")
    assert (verdict.allowed, verdict.wants_body) == (False, 65_536)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.text(max_size=10), st.text(max_size=60), st.binary(max_size=80))
def test_no_request_crashes_it_and_nothing_unknown_is_allowed(host, method, path, body):
    for name in (host, "graph.test", "mcp.test", "api.test"):
        verdict = ask(name, method=method, path=path, body=body)
        if verdict.allowed:
            assert verdict.rule
