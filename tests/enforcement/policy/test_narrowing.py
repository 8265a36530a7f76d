"""A narrower text: what it denies, what it keeps, and that nothing else of it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.policy.asked import Asked, asked, pattern_of, says
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.narrowing import draft, narrow
from clawback.errors import InvalidInput
from clawback.model import Attempt, Narrowing

EXAMPLES = Path(__file__).parents[3] / "examples"
TEXT = """\
# What a support agent may do.
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: support}
spec:
  isolation: {network: restricted, filesystem: read-only}   # the tightest
  resources: {maxMemory: 1Gi, maxCPU: 1, maxProcesses: 64}
  filesystem: {readOnly: [/srv/handbook, /srv/exports]}
---
networkPolicy:
  name: support
  egress:
    allow:
      # the API it works with
      - name: api
        domain: api.example.com   # ours
        ports: [443, 80]
      - {domain: "*.partner.test", methods: [GET, POST]}
      - name: vault
        domain: vault.internal
        methods: [GET]
        paths: ["/v1/secret/data/support/*", "/v1/sys/health"]
"""


def http(text: str) -> Attempt:
    return Attempt(kind="http", target=text)


def connect(text: str) -> Attempt:
    return Attempt(kind="connect", target=text)


def allowed(text: str, *calls: Attempt) -> list[bool]:
    network = load(text, where="text").network
    return [says(network, asked(call)).allowed for call in calls]


def test_a_denied_call_gets_a_rule_and_every_other_line_stays() -> None:
    made = narrow(
        TEXT,
        Narrowing(deny=(connect("files.partner.test:443"), http("GET http://api.example.com/admin/users?x=1"))),
        where="t",
    )
    added = [line for line in made.text.splitlines() if line not in TEXT.splitlines()]
    assert [line for line in TEXT.splitlines() if line not in made.text.splitlines()] == []
    assert added == [
        "    deny:",
        "      - domain: files.partner.test",
        "        ports: [443]",
        "      - domain: api.example.com",
        "        ports: [80]",
        "        paths: [/admin/users]",
    ]
    assert allowed(
        made.text,
        connect("files.partner.test:443"),
        http("POST https://files.partner.test/x"),
        http("GET http://api.example.com/admin/users"),
        http("GET http://api.example.com/other"),
        http("GET https://else.partner.test/x"),
    ) == [False, False, False, True, True]
    assert not made.left


def test_nothing_kept_is_nothing_allowed() -> None:
    made = narrow(TEXT, Narrowing(keep=(), drop=True, share=0.5), where="t")
    policy = load(made.text, where="t")
    assert policy.network.allow == ()
    assert (policy.sandbox.max_cpu, policy.sandbox.max_processes) == (0.5, 32)
    assert policy.sandbox.max_memory == 1 << 30


def test_rules_shrink_to_what_was_of_use() -> None:
    keep = (
        http("GET http://api.example.com:80/v1/tickets/1207"),
        http("GET http://api.example.com:80/v1/tickets/99"),
        http("GET http://vault.internal/v1/secret/data/support/crm"),
    )
    made = narrow(TEXT, Narrowing(keep=keep, drop=True), where="t")
    assert all(allowed(made.text, *keep))
    assert allowed(
        made.text,
        http("GET http://api.example.com:80/v1/tickets/7"),
        http("POST http://api.example.com:80/v1/tickets/7"),
        http("GET http://api.example.com:80/v1/users"),
        http("GET http://vault.internal/v1/sys/health"),
        http("GET http://files.partner.test/x"),
    ) == [True, False, False, False, False]
    assert "# the API it works with" in made.text
    assert "# ours" in made.text


def test_a_blind_tunnel_is_narrowed_by_port_alone() -> None:
    made = narrow(TEXT, Narrowing(keep=(connect("api.example.com:443"),)), where="t")
    rule = load(made.text, where="t").network.allow[0]
    assert (rule.ports, rule.methods, rule.paths) == ((443,), (), ())
    assert len(load(made.text, where="t").network.allow) == 3  # without `drop` the others stay


def test_a_file_that_is_shown_by_name_is_shown_no_more() -> None:
    deny = tuple(
        Attempt(kind="open", target=x) for x in ("/srv/exports", "/srv/handbook/secret.txt", "/root/.aws/credentials")
    )
    made = narrow(TEXT, Narrowing(deny=deny), where="t")
    assert load(made.text, where="t").sandbox.readable == ("/srv/handbook",)
    assert len(made.left) == 2


OPENSHELL = (EXAMPLES / "openshell.yaml").read_text()


def test_openshell_denies_by_rule_where_it_sees_requests_and_by_leaving_out_where_not() -> None:
    made = narrow(
        OPENSHELL,
        Narrowing(deny=(http("GET https://api.example.com/v1/export"), connect("db.internal.example.com:5432"))),
        where="t",
    )
    assert allowed(
        made.text,
        http("GET https://api.example.com/v1/export"),
        http("GET https://api.example.com/v1/users"),
        connect("db.internal.example.com:5432"),
    ) == [False, True, False]
    kept = OPENSHELL.splitlines()[:18]
    assert made.text.splitlines()[:18] == kept
    assert '- { method: "*", path: "/v1/admin/**" }' in made.text


def test_openshell_shrinks_an_access_preset_to_the_requests_that_were_seen() -> None:
    keep = (http("GET https://api.example.com/v1/tickets/12"), connect("api.example.com:443"))
    made = narrow(OPENSHELL, Narrowing(keep=keep, drop=True), where="t")
    assert all(allowed(made.text, *keep))
    assert allowed(
        made.text,
        http("GET https://api.example.com/v1/users"),
        http("HEAD https://api.example.com/v1/tickets/12"),
        connect("db.internal.example.com:5432"),
    ) == [False, False, False]
    assert load(narrow(OPENSHELL, Narrowing(keep=(), drop=True), where="t").text, where="t").network.rules == ()


def test_an_endpoint_that_only_logged_enforces_what_is_denied_now() -> None:
    lax = OPENSHELL.replace("enforcement: enforce", "enforcement: audit")
    call = http("GET https://api.example.com/v1/export")
    assert allowed(lax, call) == [True]
    assert allowed(narrow(lax, Narrowing(deny=(call,)), where="t").text, call) == [False]


def test_a_preset_is_narrowed_too() -> None:
    text = (EXAMPLES / "preset.yaml").read_text()
    made = narrow(text, Narrowing(keep=(http("GET https://tickets.example.com/a"),), drop=True), where="t")
    assert allowed(made.text, http("POST https://tickets.example.com/api/tickets")) == [False]


def test_a_draft_says_what_the_engine_would() -> None:
    calls = (connect("files.partner.test:443"), http("GET http://api.example.com:80/x"), connect("nonsense"))
    made = draft("support", 3, TEXT, Narrowing(deny=calls[:1]), calls)
    assert [one.allowed for one in made.decisions] == [False, True, False]
    assert made.diff.startswith("--- version 3")
    assert made.changes
    assert not draft("support", 3, TEXT, Narrowing(), calls).diff


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_narrowing_by_nothing_is_the_same_text(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert narrow(text, Narrowing(), where=name).text == text


def test_a_share_out_of_bounds_is_refused() -> None:
    with pytest.raises(InvalidInput, match="share"):
        narrow(TEXT, Narrowing(share=0), where="t")


def test_numbered_parts_of_a_path_stand_for_all_such() -> None:
    assert pattern_of("/v1/tickets/1207") == "/v1/tickets/*"
    assert pattern_of("/v1/a*b") == ""


_HOSTS = st.sampled_from(["api.example.com", "files.partner.test", "vault.internal", "other.test"])
_CALLS = st.one_of(
    st.builds(lambda host, port: connect(f"{host}:{port}"), _HOSTS, st.sampled_from([443, 80])),
    st.builds(
        lambda method, host, path: http(f"{method} http://{host}{path}"),
        st.sampled_from(["GET", "POST"]),
        _HOSTS,
        st.sampled_from(["/", "/v1/sys/health", "/v1/secret/data/support/a", "/v1/t/5"]),
    ),
)
_TEXTS = st.sampled_from([TEXT, OPENSHELL])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    text=_TEXTS,
    keep=st.none() | st.lists(_CALLS, max_size=5),
    deny=st.lists(_CALLS, max_size=3),
    drop=st.booleans(),
    tried=_CALLS,
)
def test_it_never_allows_more_and_always_denies_what_it_should(
    text: str, keep: list[Attempt] | None, deny: list[Attempt], drop: Any, tried: Attempt
) -> None:
    narrowing = Narrowing(deny=tuple(deny), keep=None if keep is None else tuple(keep), drop=drop)
    made = narrow(text, narrowing, where="t").text
    if allowed(made, tried) == [True]:
        assert allowed(text, tried) == [True]
    assert not any(allowed(made, *deny))
    for call in keep or ():
        if allowed(text, call) == [True] and not deny:
            assert allowed(made, call) == [True]


def test_a_call_is_read_strictly() -> None:
    assert asked(http("get https://API.example.com/a?b")) == Asked(
        host="api.example.com", port=443, method="GET", path="/a"
    )
    for wrong in (connect("x:0"), connect("x"), http("GET /only/path"), Attempt(kind="open", target="/x")):
        with pytest.raises(InvalidInput):
            asked(wrong)
