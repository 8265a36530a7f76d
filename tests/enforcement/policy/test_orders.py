"""Orders: what they deny, whatever is allowed; and that nothing gets past one by being written differently."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.gateway.destinations import forms
from clawback.enforcement.policy.order_calls import Content
from clawback.enforcement.policy.order_form import checked, checked_endpoint
from clawback.enforcement.policy.orders import NOTHING, Asked, Orders, Ruling
from clawback.errors import InvalidInput
from clawback.model import EgressOrder, InferenceEndpoint, InferenceKind, OrderKind, Scope, ScopeKind, Subject

ALL = Scope(ScopeKind.ALL)
ROGUE = Subject(agent="rogue", tenant="acme", team="support", tags=("env=prod", "gpu"))


def order(kind: OrderKind = OrderKind.DESTINATION, **fields: Any) -> EgressOrder:
    values = {"id": "o1", "scope": ALL, "reason": "because", "by": "tester", **fields}
    return checked(EgressOrder(kind=kind, **values))


def decide(*orders: EgressOrder, host: str, subject: Subject = ROGUE, inference: tuple = (), **asked: Any) -> Ruling:
    body = asked.pop("body", None)
    path = asked.get("path", "")
    content = None if body is None else Content(body, path, encoded=asked.pop("encoded", False))
    values = {"port": 443, "method": "GET", "path": "/", "content": content, **asked}
    return Orders(orders, inference, forms).decide(subject, Asked(host=host, **values))


# -- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "port", "host", "denied"),
    [
        ("evil.test", 0, "evil.test", True),
        ("EVIL.test.", 0, "evil.test", True),
        ("evil.test", 443, "evil.test", True),
        ("evil.test", 8443, "evil.test", False),
        ("evil.test", 0, "a.evil.test", False),
        ("evil.test", 0, "notevil.test", False),
        ("*.evil.test", 0, "a.evil.test", True),
        ("*.evil.test", 0, "a.b.evil.test", True),
        ("*.evil.test", 0, "evil.test", False),
        ("*.evil.test", 0, "aevil.test", False),
        ("*", 0, "anything.test", True),
        ("203.0.113.7", 0, "203.0.113.7", True),
        ("203.0.113.0/24", 0, "203.0.113.200", True),
        ("203.0.113.0/24", 0, "203.0.114.1", False),
        ("203.0.113.0/24", 0, "64:ff9b::cb00:7109", True),  # NAT64 reaches what it wraps
        ("::ffff:203.0.113.0/120", 0, "203.0.113.9", True),
        ("2001:db8::/32", 0, "2001:db8:1::2", True),
        ("2001:db8::/32", 0, "2001:db9::1", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_a_destination(pattern: str, port: int, host: str, denied: bool, method: str) -> None:
    found = decide(order(host=pattern, port=port), host=host, method=method)
    assert bool(found.denied) is denied
    assert ("denied by an order" in found.why) is denied


def test_where_a_name_leads_counts_as_far_as_it_is_known() -> None:
    blocked = order(host="203.0.113.0/24")
    assert decide(blocked, host="a.test") == NOTHING
    leads = (ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("203.0.113.5"))
    assert decide(blocked, host="a.test", addresses=leads).denied == (blocked,)


@pytest.mark.parametrize(
    ("kind", "value", "subject", "covered"),
    [
        ("all", "", ROGUE, True),
        ("agent", "rogue", ROGUE, True),
        ("agent", "other", ROGUE, False),
        ("tenant", "acme", ROGUE, True),
        ("tenant", "other", ROGUE, False),
        ("team", "support", ROGUE, True),
        ("tag", "gpu", ROGUE, True),
        ("tag", "env=test", ROGUE, False),
        ("tenant", "acme", Subject(agent="rogue"), True),
        ("team", "x", Subject(agent="rogue"), True),
        ("tag", "x", Subject(agent="rogue"), True),
        ("agent", "x", Subject(agent="rogue"), False),
        ("tag", "x", Subject(agent="rogue", tenant="", team="", tags=()), False),
    ],
)
@pytest.mark.parametrize("others", [0, 20], ids=["few", "many"])
def test_a_scope(kind: str, value: str, subject: Subject, covered: bool, others: int) -> None:
    more = [order(id=f"x{n}", host="evil.test", scope=Scope(ScopeKind.AGENT, f"x{n}")) for n in range(others)]
    one = order(host="evil.test", scope=Scope(ScopeKind(kind), value))
    assert bool(decide(*more, one, host="evil.test", subject=subject).denied) is covered


def test_the_oldest_is_named_first_and_all_are_said() -> None:
    orders = [order(id=f"o{n}", host="evil.test") for n in range(3)]
    placed = [
        EgressOrder(**{**{f: getattr(one, f) for f in one.__dataclass_fields__}, "placed_ns": 9 - n})
        for n, one in enumerate(orders)
    ]
    assert [one.id for one in decide(*placed, host="evil.test").denied] == ["o2", "o1", "o0"]


# -- tools -----------------------------------------------------------------------------------------------------------


def call(tool: Any, **more: Any) -> bytes:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}, **more}
    return json.dumps(message).encode()


DELETE = order(OrderKind.TOOL, tool="delete_*")


@pytest.mark.parametrize(
    "body",
    [
        call("delete_user"),
        call("DELETE_USER"),
        call(" delete_user "),
        b"\xef\xbb\xbf" + call("delete_user"),
        b"\r\n\t " + call("delete_user"),
        b"[" + call("read") + b"," + call("delete_all") + b"]",
        call("delete_user").replace(b"tools/call", b"tools\\/call"),
        call("delete_user").replace(b"delete_user", b"delete\\u005fuser"),
        call("delete_user").replace(b'"method"', b'"Method"'),
        call("delete_user").replace(b'"jsonrpc": "2.0", ', b""),
        call("delete_x").replace(b"delete_x", b"delete_\xff"),
        # What may be a call and cannot be read.
        call("read").replace(b'"id": 1', b'"method": "ping"'),
        call("read").replace(b'"id": 1', b'"METHOD": "tools/call"'),
        call("delete_user") + call("read"),
        call("delete_user").decode().encode("utf-16"),
        call("delete_user").decode().encode("utf-16-le"),
        call(None),
        call(["delete_user"]),
        b'{"method": "tools/call"}',
        b'{"method": ["tools/call"]}',
        b"[" + b",".join([call("read")] * 65) + b"]",
        b"{" * 5000,
        b"{not json",
    ],
)
def test_a_denied_tool_is_not_called_however_it_is_written(body: bytes) -> None:
    assert decide(DELETE, host="mcp.test", method="POST", body=body).denied == (DELETE,)


@pytest.mark.parametrize(
    "body",
    [b"", call("read_user"), call("undelete_user"), b"a=1&b=delete_user", b"\x89PNG\r\n", b'{"a": 1}', b'"delete_x"',
     json.dumps({"jsonrpc": "2.0", "method": "tools/list"}).encode(), b"[1, 2]"],
)  # fmt: skip
def test_what_does_not_call_it_goes_on(body: bytes) -> None:
    found = decide(DELETE, host="mcp.test", method="POST", body=body)
    assert (found.denied, found.wants_body) == ((), False)


def test_a_tool_asks_for_the_body_and_for_tunnels_to_be_looked_into() -> None:
    assert decide(DELETE, host="mcp.test", method="POST").wants_body
    assert decide(DELETE, host="mcp.test", method="CONNECT").look == (DELETE,)
    here = order(OrderKind.TOOL, tool="delete_*", host="mcp.test")
    assert decide(here, host="other.test", method="POST") == NOTHING


def test_an_encoded_body_calls_what_cannot_be_seen() -> None:
    assert "cannot be looked at" in decide(DELETE, host="m.test", method="POST", body=b"\x1f\x8b", encoded=True).why


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_no_body_breaks_the_reader(body: bytes) -> None:
    decide(DELETE, host="mcp.test", method="POST", body=body)


@pytest.mark.slow
@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None)
def test_a_tool_behind_any_prefix_is_denied(before: str, after: str) -> None:
    """Of every name that the pattern means, none is let through: not by odd letters, brackets or line ends."""
    every = order(OrderKind.TOOL, tool="*delete*")
    assert decide(every, host="m.test", method="POST", body=call(f"{before}delete{after}")).denied


@pytest.mark.parametrize(
    ("method", "path", "denied"),
    [
        ("DELETE", "/v1/users/7", True),
        ("delete", "/v1/users/7", True),
        ("DELETE", "/v1/users/7/", True),
        ("DELETE", "/V1/Users/7", True),
        ("DELETE", "/v1/%75sers/7?x=1", True),
        ("DELETE", "/v1//users/7", True),  # read in more than one way
        ("DELETE", "/v1/x/../users/7", True),
        ("DELETE", "/v1/users%2f7", True),
        ("DELETE", "/v1/users/7/files", False),
        ("GET", "/v1/users/7", False),
        ("GET", "/v1//users/7", False),
    ],
)
def test_an_http_api_as_a_tool(method: str, path: str, denied: bool) -> None:
    api = order(OrderKind.TOOL, method="DELETE", path="/v1/users/*", host="crm.test")
    assert bool(decide(api, host="crm.test", method=method, path=path).denied) is denied
    assert decide(api, host="crm.test", method="CONNECT").look == (api,)


@pytest.mark.parametrize(
    ("path", "denied"),
    [("/mcp", True), ("/mcp/", True), ("/MCP/x", True), ("/mcp?x", True), ("/%6dcp", True), ("/./mcp", True),
     ("/mcpx", False), ("/", False)],
)  # fmt: skip
def test_a_connector_below_a_path(path: str, denied: bool) -> None:
    one = order(OrderKind.CONNECTOR, host="tools.test", path="/mcp/")
    assert bool(decide(one, host="tools.test", path=path).denied) is denied
    assert decide(one, host="tools.test", method="CONNECT").look == (one,)
    whole = order(OrderKind.CONNECTOR, host="tools.test")
    assert decide(whole, host="tools.test", method="CONNECT").denied == (whole,)


# -- inference -------------------------------------------------------------------------------------------------------

CLOUD, LOCAL = InferenceKind.CLOUD, InferenceKind.LOCAL
MODELS = tuple(
    checked_endpoint(one, "gateway.inference[0]")
    for one in (
        InferenceEndpoint(host="api.cloud.test", kind=CLOUD),
        InferenceEndpoint(host="*.models.test", kind=CLOUD, port=443, path="/v1"),
        InferenceEndpoint(host="10.0.0.5", kind=LOCAL, port=8000),
    )
)


def modes(mode: str, host: str, **asked: Any) -> Ruling:
    return decide(order(OrderKind.INFERENCE, mode=mode), host=host, inference=MODELS, **asked)


def test_cut_leaves_no_endpoint_and_all_else() -> None:
    assert modes("cut", "api.cloud.test").denied
    assert modes("cut", "api.cloud.test", method="CONNECT").denied
    assert modes("cut", "10.0.0.5", port=8000).denied
    assert modes("cut", "gpu.test", port=8000, addresses=(ipaddress.ip_address("10.0.0.5"),)).denied
    assert modes("cut", "10.0.0.5", port=22) == Ruling()
    assert modes("cut", "eu.models.test", method="CONNECT").look
    assert modes("cut", "eu.models.test", path="/v1/chat").denied
    assert not modes("cut", "eu.models.test", path="/status").denied
    assert modes("cut", "other.test") == Ruling()


def test_local_only_refuses_the_cloud_alone() -> None:
    assert modes("local-only", "api.cloud.test").denied
    assert modes("local-only", "10.0.0.5", port=8000) == Ruling()


def test_what_is_sensitive_is_held_and_the_rest_passes() -> None:
    say = lambda text: json.dumps({"messages": [{"content": text}]}).encode()  # noqa: E731
    assert modes("queue-sensitive", "api.cloud.test", method="CONNECT").look
    assert modes("queue-sensitive", "api.cloud.test", method="POST").wants_body
    found = modes("queue-sensitive", "api.cloud.test", method="POST", body=say("card 4111 1111 1111 1111"))
    assert (bool(found.held), found.found, found.denied) == (True, ("payment-card",), ())
    assert found.endpoint == MODELS[0]
    found = modes("queue-sensitive", "api.cloud.test", method="POST", body=say("what is a card?"))
    assert (found.held, found.wants_body) == ((), False)
    assert modes("queue-sensitive", "api.cloud.test", path="/?q=a%40b.example", body=b"").held
    assert modes("queue-sensitive", "10.0.0.5", port=8000, method="POST") == Ruling()
    assert modes("queue-sensitive", "api.cloud.test", method="POST", body=b"\x1f\x8b", encoded=True).held


def test_a_damaged_order_denies_everything_to_everybody() -> None:
    damaged = EgressOrder(id="x", kind=OrderKind.DAMAGED, scope=ALL, reason="?", by="gateway")
    for method in ("GET", "CONNECT"):
        assert decide(damaged, host="any.test", method=method, subject=Subject(agent="x")).denied == (damaged,)


# -- form ------------------------------------------------------------------------------------------------------------

DEST, TOOL, CONN, INF = OrderKind.DESTINATION, OrderKind.TOOL, OrderKind.CONNECTOR, OrderKind.INFERENCE


@pytest.mark.parametrize(
    ("kind", "fields", "names"),
    [
        (DEST, {"id": "../x", "host": "a.test"}, "id"),
        (DEST, {"id": ".x", "host": "a.test"}, "id"),
        (DEST, {"host": ""}, "host"),
        (DEST, {"host": "http://a.test/"}, "host"),
        (DEST, {"host": "a.test:443"}, "host"),
        (DEST, {"host": "*.10.0.0.1"}, "host"),
        (DEST, {"host": "a.*.test"}, "host"),
        (DEST, {"host": "10.0.0.1/8"}, "host"),
        (DEST, {"host": "a.test", "port": 70_000}, "port"),
        (DEST, {"host": "a.test", "port": -1}, "port"),
        (DEST, {"host": "a.test", "tool": "x"}, "tool"),
        (DEST, {"host": "a.test", "reason": ""}, "reason"),
        (DEST, {"host": "a.test", "by": "a\nb"}, "by"),
        (DEST, {"host": "a.test", "scope": Scope(ScopeKind.AGENT)}, "scope"),
        (DEST, {"host": "a.test", "scope": Scope(ScopeKind.ALL, "x")}, "scope"),
        (TOOL, {}, "tool"),
        (TOOL, {"tool": "*" * 9}, "tool"),
        (TOOL, {"tool": "x", "path": "/x"}, "tool"),
        (TOOL, {"tool": "x", "port": 1}, "port"),
        (TOOL, {"method": "DELETE", "path": "/x"}, "tool"),
        (TOOL, {"method": "delete", "path": "/x", "host": "a.test"}, "method"),
        (TOOL, {"method": "CONNECT", "path": "/x", "host": "a.test"}, "method"),
        (TOOL, {"method": "GET", "path": "x", "host": "a.test"}, "path"),
        (TOOL, {"method": "GET", "path": "/a/../b", "host": "a.test"}, "path"),
        (TOOL, {"method": "GET", "path": "/a?b", "host": "a.test"}, "path"),
        (CONN, {"host": "*.a.test"}, "host"),
        (CONN, {"host": "a.test", "path": "/x/*"}, "path"),
        (INF, {"mode": "off"}, "mode"),
        (OrderKind.DAMAGED, {}, "kind"),
    ],
)
def test_what_is_not_sound_is_refused_by_field(kind: OrderKind, fields: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidInput, match=f"order: {names}: ") as error:
        order(kind, **fields)
    assert error.value.hint


@pytest.mark.parametrize("host", ["", "a b", "*.10.0.0.1", "*", "http://x"])
def test_an_endpoint_that_is_none_is_refused_by_its_key(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"gateway.inference\[3\].host"):
        checked_endpoint(InferenceEndpoint(host=host, kind=CLOUD), "gateway.inference[3]")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.test", "*.test", "b.a.test", "10.0.0.0/8", "10.1.1.1", "*"]),
            st.sampled_from([0, 80, 443]),
            st.sampled_from([ALL, Scope(ScopeKind.AGENT, "rogue"), Scope(ScopeKind.AGENT, "x")]),
        ),
        max_size=12,
    ),
    st.sampled_from(["a.test", "b.a.test", "c.test", "10.1.1.1", "192.0.2.1"]),
    st.sampled_from([80, 443]),
)  # fmt: skip
@settings(deadline=None)
def test_sorted_or_one_by_one_the_answer_is_the_same(given_orders: list, host: str, port: int) -> None:
    orders = [order(id=f"o{n}", host=h, port=p, scope=s) for n, (h, p, s) in enumerate(given_orders)]
    alone = [one.id for one in orders if decide(one, host=host, port=port).denied]
    together = decide(*orders, host=host, port=port).denied
    assert sorted(one.id for one in together) == sorted(alone)
