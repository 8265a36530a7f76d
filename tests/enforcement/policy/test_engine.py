"""Decisions: default deny, deny first, and one meaning for every spelling of a host or path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.policy.engine import decide
from clawback.enforcement.policy.names import AmbiguousError, normal_host, normal_path
from clawback.enforcement.policy.types import EgressRule, NetworkPolicy

POLICY = NetworkPolicy(
    name="p",
    allow=(
        EgressRule(name="api", domain="api.example.com", ports=(80, 443), methods=("GET",), paths=("/v1/*", "/v2/**")),
        EgressRule(name="wild", domain="*.example.org"),
        EgressRule(name="mail", domain="mail.example.com", ports=(587,), methods=("CONNECT",)),
        EgressRule(name="local", domain="127.0.0.1", ports=(8080,)),
        EgressRule(name="six", domain="2001:db8::1"),
        EgressRule(name="idn", domain="xn--bcher-kva.example.net"),
    ),
    deny=(
        EgressRule(name="no-admin", domain="*.example.org", paths=("/admin/**",)),
        EgressRule(name="no-delete", domain="files.example.org", methods=("DELETE",)),
        EgressRule(name="no-evil", domain="evil.example.org"),
        EgressRule(name="rest", domain="*"),
    ),
)


def ask(host: str, port: int = 80, method: str = "GET", path: str = "/") -> tuple[bool, str]:
    verdict = decide(POLICY, host=host, port=port, method=method, path=path)
    assert verdict.reason
    return verdict.allowed, verdict.rule


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (("api.example.com", 80, "GET", "/v1/users"), (True, "api")),
        (("API.Example.COM.", 443, "GET", "/v1/users?x=/../y"), (True, "api")),
        (("api.example.com", 80, "GET", "/v1/users/1"), (False, "rest")),
        (("api.example.com", 80, "GET", "/v2/users/1/2"), (True, "api")),
        (("api.example.com", 81, "GET", "/v1/users"), (False, "rest")),
        (("api.example.com", 80, "POST", "/v1/users"), (False, "rest")),
        (("api.example.com", 443, "CONNECT", ""), (True, "api")),
        (("api.example.com", 81, "CONNECT", ""), (False, "rest")),
        (("mail.example.com", 587, "CONNECT", ""), (True, "mail")),
        (("mail.example.com", 587, "GET", "/"), (False, "rest")),
        (("a.example.org", 1, "PUT", "/x"), (True, "wild")),
        (("a.b.example.org", 1, "PUT", "/x"), (True, "wild")),
        (("example.org", 80, "GET", "/"), (False, "rest")),
        (("evilexample.org", 80, "GET", "/"), (False, "rest")),
        (("a.example.org.evil.com", 80, "GET", "/"), (False, "rest")),
        (("evil.example.org", 80, "GET", "/"), (False, "no-evil")),
        (("a.example.org", 80, "GET", "/admin/x"), (False, "no-admin")),
        (("a.example.org", 80, "GET", "/%61dmin/x"), (False, "no-admin")),
        (("a.example.org", 80, "GET", "/x/..%2fadmin/x"), (False, "no-admin")),
        (("a.example.org", 443, "CONNECT", ""), (True, "wild")),
        (("evil.example.org", 443, "CONNECT", ""), (False, "no-evil")),
        (("files.example.org", 80, "delete", "/x"), (False, "no-delete")),
        (("bücher.example.net", 80, "GET", "/"), (True, "idn")),
        (("BÜCHER.example.net", 80, "GET", "/"), (True, "idn")),
        (("other.net", 80, "GET", "/"), (False, "rest")),
    ],
)
def test_decisions(question, expected):
    assert ask(*question) == expected


@pytest.mark.parametrize(
    ("host", "port", "inspect"),
    [("api.example.com", 443, True), ("a.example.org", 443, True), ("mail.example.com", 587, False),
     ("127.0.0.1", 8080, False)],
)  # fmt: skip
def test_a_tunnel_is_blind_only_where_no_rule_looks_at_requests(host, port, inspect):
    verdict = decide(POLICY, host=host, port=port, method="CONNECT", path="")
    assert (verdict.allowed, verdict.inspect) == (True, inspect)


def test_a_tunnel_that_must_be_blind_and_must_be_seen_is_none():
    policy = NetworkPolicy(
        name="p",
        allow=(EgressRule(name="blind", domain="a.test", methods=("CONNECT",)),),
        deny=(EgressRule(name="no", domain="a.test", paths=("/no/**",)),),
    )
    verdict = decide(policy, host="a.test", port=443, method="CONNECT", path="")
    assert not verdict.allowed
    assert "rule no denies" in verdict.reason


def test_a_decision_names_its_level():
    levels = [
        decide(POLICY, host=host, port=port, method=method, path=path).level
        for host, port, method, path in (
            ("api.example.com", 80, "GET", "/v1/x"),
            ("api.example.com", 80, "POST", "/v1/x"),
            ("api.example.com", 80, "GET", "/v3"),
            ("a.example.org", 80, "GET", "/"),
            ("other.net", 80, "GET", "/"),
            ("files.example.org", 80, "DELETE", "/x"),
        )
    ]
    assert levels == ["path", "method", "path", "destination", "destination", "method"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.1", "[::ffff:127.0.0.1]",
     "::ffff:7f00:1", "127.0.0.1."],
)  # fmt: skip
def test_an_address_is_one_in_every_spelling(host):
    assert normal_host(host) == "127.0.0.1"
    assert ask(host, 8080) == (True, "local")
    assert ask("[2001:DB8:0:0::1]") == (True, "six")


@pytest.mark.parametrize(
    "host",
    ["", ".", "a..b", "-a.com", "a b", "a\x00b", "a.com/x", "a.com%00", "[::1", "::1]", "fe80::1%eth0", "1.2.3.4.5",
     "256.1.1.1", "0x", "09.1.1.1", "1.2.3.999", "a" * 64 + ".com", "a." * 130 + "com", "*.example.org", "a@b",
     "\ud800.com"],
)  # fmt: skip
def test_hosts_that_are_not_are_refused(host):
    try:
        assert normal_host(host) == "0.0.0.0", host  # "0x" is what inet_aton takes for zero
    except AmbiguousError:
        assert decide(POLICY, host=host, port=80, method="GET", path="/").allowed is False


@pytest.mark.parametrize(
    "path",
    ["x", "", "//", "/a//b", "/a/./b", "/a/../b", "/a/..", "/a/%2e%2e/b", "/a/%2E./b", "/a%2fb", "/a%5cb", "/a\\b",
     "/a;b", "/a%3bb", "/a%00", "/a%0ab", "/%c0%ae", "/%ff", "/%252e", "/%zz", "/%2", "/a#b", "/\u00e9"],
)  # fmt: skip
def test_paths_that_servers_read_differently_are_refused(path):
    with pytest.raises(AmbiguousError):
        normal_path(path)


def test_honest_paths_are_not():
    for path, plain in (
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/a.b/..c?d=/../;", "/a.b/..c"),
        ("/100%25", "/100%"),
    ):
        assert normal_path(path) == plain


def test_the_lone_star_denies_last_and_a_restricted_one_first():
    deny = (EgressRule(name="delete", domain="*", methods=("DELETE",)), EgressRule(name="rest", domain="*"))
    policy = NetworkPolicy(name="p", allow=(EgressRule(name="a", domain="a.test"),), deny=deny)
    answers = [
        decide(policy, host=h, port=80, method=m, path="/")[:2]
        for h, m in (("a.test", "GET"), ("a.test", "DELETE"), ("b.test", "GET"))
    ]
    assert answers == [(True, "a"), (False, "delete"), (False, "rest")]


def test_nothing_is_allowed_by_nothing():
    assert decide(NetworkPolicy(name="p"), host="a.test", port=80, method="GET", path="/").allowed is False


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60), st.integers(-5, 70_000), st.text(max_size=10), st.text(max_size=60))
def test_no_request_crashes_the_engine(host, port, method, path):
    decide(POLICY, host=host, port=port, method=method, path=path)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40))
def test_a_normal_host_stays_what_it_is(host):
    try:
        once = normal_host(host)
    except AmbiguousError:
        return
    assert normal_host(once) == once
