"""`clawback orders` over a real gateway."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import Unreachable
from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind

from .running import clawback

pytestmark = pytest.mark.slow


@pytest.fixture
def gateway(state: Path) -> Iterator[GatewayClient]:
    """By the command itself, with its settings."""
    (state / "clawback.yaml").write_text(
        f"state: {state}\n"
        "gateway:\n"
        "  queue_seconds: 7\n"
        "  inference:\n"
        "    - {host: 'api.cloud.test:8443', kind: cloud, path: /v1}\n"
        "    - {host: '*.gpu.test', kind: local}\n"
        "    - {host: '[2001:db8::7]:8000', kind: local}\n"
    )
    process = subprocess.Popen([sys.executable, "-m", "clawback", "gateway"], cwd=state, stderr=subprocess.DEVNULL)
    client = GatewayClient(state / "run" / "gateway.sock")
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None
        with contextlib.suppress(Unreachable):
            client.health()
            break
        assert time.monotonic() < end
        time.sleep(0.02)
    yield client
    process.terminate()
    process.wait(15)


def test_list_and_lift(state: Path, gateway: GatewayClient) -> None:
    assert clawback(state, "orders", "list").stdout.strip() == "no orders"
    assert json.loads(clawback(state, "orders", "list", "--json").stdout) == {"orders": [], "held": {}}
    gateway.place(
        EgressOrder(
            id="INC-1.ab",
            kind=OrderKind.DESTINATION,
            scope=Scope(ScopeKind.TEAM, "[bold]sales"),
            host="evil.test",
            reason="ex\x1bfiltration",
            by="soc",
            incident="INC-1",
        )
    )
    said = clawback(state, "orders", "list").stdout
    for word in ("INC-1.ab", "destination evil.test", "team [bold]sales", "soc"):
        assert word in said
    assert "\x1b" not in said
    (order,) = json.loads(clawback(state, "orders", "list", "--json").stdout)["orders"]
    assert (order["id"], order["kind"], order["scope"]) == (
        "INC-1.ab",
        "destination",
        {"kind": "team", "value": "[bold]sales"},
    )
    lifted = clawback(state, "orders", "lift", "INC-1.ab", "--reason", "over")
    assert (lifted.returncode, lifted.stdout) == (
        0,
        "INC-1.ab: lifted; it denied destination evil.test to team [bold]sales\n",
    )
    again = clawback(state, "orders", "lift", "INC-1.ab", "--reason", "over")
    assert again.returncode == 4
    assert again.stderr == "error: no order 'INC-1.ab' stands\nhint: clawback orders list\n"
    assert clawback(state, "orders", "lift", "x").returncode == 2, "no reason"


def test_the_settings_endpoints_reach_the_gateway(gateway: GatewayClient) -> None:
    assert [(one.host, one.port, one.kind.value, one.path) for one in gateway.inference()] == [
        ("api.cloud.test", 8443, "cloud", "/v1"),
        ("*.gpu.test", 0, "local", ""),
        ("2001:db8::7", 8000, "local", ""),
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{host: 'https://x.test/', kind: cloud}", "gateway.inference.0.host"),
        ("{host: x.test, kind: mars}", "gateway.inference.0.kind"),
        ("{host: x.test}", "gateway.inference.0.kind"),
        ("{host: 'x.test:0', kind: local}", "gateway.inference.0.host"),
        ("{host: '*.10.0.0.1', kind: local}", "gateway.inference[0].host"),
        ("{host: x.test, kind: local, path: v1}", "gateway.inference[0].path"),
        ("{host: 'x.test:99999', kind: local}", "gateway.inference[0].host"),
    ],
)
def test_an_endpoint_that_is_none_is_named(state: Path, entry: str, says: str) -> None:
    (state / "clawback.yaml").write_text(f"gateway: {{inference: [{entry}]}}\n")
    said = clawback(state, "gateway")
    assert said.returncode == 2, said
    assert says in said.stderr
    assert "hint: " in said.stderr


def test_without_a_gateway_it_says_so(state: Path) -> None:
    for words in (("list",), ("lift", "x", "--reason", "y")):
        said = clawback(state, "orders", *words)
        assert said.returncode == 3
        assert said.stderr.startswith("error: the gateway at ")
