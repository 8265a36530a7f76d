"""Rules, addresses, orders: what needs no kernel."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any

import pytest

from clawback.enforcement import durable
from clawback.enforcement.core.holds import Holds
from clawback.enforcement.policy.calls import ArgumentTest
from clawback.enforcement.policy.escalation import ADDRESSED, NAMED, Decision, EscalationRule, Support, refusal, support
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise import orders as module
from clawback.enforcement.supervise.calls import TAKEN_APART
from clawback.enforcement.supervise.orders import Orders
from clawback.enforcement.supervise.records import bounded
from clawback.enforcement.supervise.rules import decide, reaches
from clawback.enforcement.supervise.target import address
from clawback.errors import InvalidInput
from clawback.model import Level, Order

NOTHING = (0,) * 6


def inet(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)


def inet6(host: str, port: int) -> bytes:
    head = struct.pack("=H", socket.AF_INET6) + port.to_bytes(2, "big") + bytes(4)
    return head + socket.inet_pton(socket.AF_INET6, host) + bytes(4)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (inet("10.1.2.3", 443), "10.1.2.3:443"),
        (inet6("::1", 80), "[::1]:80"),
        (inet6("::ffff:10.1.2.3", 443), "10.1.2.3:443"),  # the kernel sends it by IPv4
        (struct.pack("=H", socket.AF_UNIX) + b"/run/x\0rest", "unix:/run/x"),
        (struct.pack("=H", socket.AF_UNIX) + b"\0na\xff", "unix:@na\\xff"),
        (struct.pack("=H", 16) + bytes(10), "family 16"),
    ],
)
def test_addresses_say_where_they_lead(raw, text):
    assert address(raw).text == text


@pytest.mark.parametrize("raw", [inet("1.2.3.4", 1)[:6], inet6("::1", 1)[:20]])
def test_an_address_cut_off_is_refused(raw):
    with pytest.raises(OSError, match="cut off"):
        address(raw)


@pytest.mark.parametrize(
    ("item", "raw", "reached"),
    [
        ("10.0.0.0/8:443", inet("10.1.2.3", 443), True),
        ("10.0.0.0/8:443", inet("10.1.2.3", 444), False),
        ("10.0.0.0/8:443", inet6("::ffff:10.9.9.9", 443), True),
        ("127.0.0.1:*", inet("127.0.0.1", 9), True),
        ("127.0.0.1:*", inet("127.0.0.2", 9), False),
        ("[::1]:80", inet6("::1", 80), True),
        ("*:80", inet6("::1", 80), True),
        ("*:80", struct.pack("=H", socket.AF_UNIX) + b"/x\0", False),
        ("unix:/run/*", struct.pack("=H", socket.AF_UNIX) + b"/run/x\0", True),
        ("unix:/run/*", struct.pack("=H", socket.AF_UNIX) + b"/runaway\0", False),
        ("unix:@x", struct.pack("=H", socket.AF_UNIX) + b"\0x", True),
        ("unix:@x", struct.pack("=H", socket.AF_UNIX) + b"\0xy", False),
    ],
)
def test_rules_name_addresses(item, raw, reached):
    assert reaches(item, address(raw)) is reached


def rule(*names: str, decision: Decision = Decision.ALLOW, **more: Any) -> EscalationRule:
    return EscalationRule(names=names, decision=decision, **more)


def test_the_first_rule_that_matches_counts_and_none_asks():
    rules = (
        rule("openat", paths=("/etc/shadow",), decision=Decision.DENY),
        rule("openat", paths=("/etc",), writes=False),
        rule("kill", tests=(ArgumentTest(argument=1, operator="eq", value=0),)),
    )
    opened = {"name": "openat", "registers": NOTHING}
    assert decide(rules, **opened, paths=("/etc/shadow",), writes=False) == (Decision.DENY, 1)
    assert decide(rules, **opened, paths=("/etc/hosts",), writes=False) == (Decision.ALLOW, 2)
    assert decide(rules, **opened, paths=("/etc/hosts",), writes=True) == (Decision.ASK, 0)
    assert decide(rules, **opened, paths=("/etcetera",), writes=False) == (Decision.ASK, 0)
    assert decide(rules, name="kill", registers=(1, 0, 0, 0, 0, 0)) == (Decision.ALLOW, 3)
    assert decide(rules, name="kill", registers=(1, 9, 0, 0, 0, 0)) == (Decision.ASK, 0)


def test_a_rename_is_allowed_where_both_ends_are_and_denied_where_one_is():
    moved = {"name": "rename", "registers": NOTHING, "paths": ("/closed/x", "/open/x"), "writes": True}
    assert decide((rule("rename", paths=("/open",)),), **moved) == (Decision.ASK, 0)
    assert decide((rule("rename", paths=("/closed",), decision=Decision.DENY),), **moved) == (Decision.DENY, 1)
    assert decide((rule("rename", paths=("/open", "/closed")),), **moved) == (Decision.ALLOW, 1)


def test_whatever_is_called_emulated_can_be_taken_apart():
    assert set(TAKEN_APART) == ADDRESSED | NAMED
    assert support("connect") is Support.EMULATED
    assert support("kill") is Support.REGISTERS
    assert support("sendmsg") is Support.NONE
    assert "connect and sendto" in refusal("sendmsg")
    assert refusal("connect") == ""


def test_rules_survive_json():
    first = rule("connect", addresses=("127.0.0.1:1",), tests=(ArgumentTest(argument=0, operator="eq", value=3),))
    given = {
        "names": ["connect"], "decision": "allow", "addresses": ["127.0.0.1:1"], "paths": [], "writes": None,
        "tests": [{"argument": 0, "operator": "eq", "value": 3, "mask": 0xFFFF_FFFF_FFFF_FFFF}],
    }  # fmt: skip
    assert EscalationRule.from_json(given) == first


def test_what_an_agent_chose_is_shown_without_its_control_characters():
    assert bounded("a\x1b[31m\n\u202eb") == "a\\x1b[31m\\n\\u202eb"
    assert len(bounded("x" * 10_000)) == 400


def box(agent: str = "alpha", instance: str = "one") -> Sandbox:
    return Sandbox(
        agent=agent, instance=instance, pid=1, start_ticks=1, shim_pid=1, shim_start_ticks=1, uid=1, cgroup="",
        folder="", policy="", policy_version=1, command=(), started_ns=0,
    )  # fmt: skip


def test_a_hold_bars_an_agent_and_a_seal_its_instance_for_good(tmp_path):
    orders = Orders(tmp_path)
    assert orders.barred(box()) == ""
    hold = tmp_path / "holds" / "alpha.json"
    hold.parent.mkdir()
    hold.write_text('{"format": "f", "sha256": "0"}\n[{"levels": [1, 2]}]\n')
    assert orders.barred(box()) == "hold"
    hold.unlink()
    assert orders.barred(box()) == ""
    hold.write_text('{"format": "f", "sha256": "0"}\n[{"levels": [1]}, {"levels": [3, 4]}]\n')
    assert orders.barred(box()) == "hold"
    hold.unlink()
    assert Orders(tmp_path).barred(box()) == "seal"
    assert orders.barred(box(instance="two")) == ""


def test_a_hold_of_many_bars_each_and_one_that_is_damaged_everybody(tmp_path):
    orders, holds = Orders(tmp_path), Holds(tmp_path / "holds")
    assert orders.barred(box()) == ""
    order = Order(levels=(Level.FREEZE,), reason="r", by="b", uid=0, placed_ns=1)
    holds.place_many({"alpha": order, "beta": order})
    assert [orders.barred(box(name)) for name in ("alpha", "beta", "gamma")] == ["hold", "hold", ""]
    holds.lift("alpha", holds.get("alpha").orders, (Level.FREEZE,))
    assert [orders.barred(box(name)) for name in ("alpha", "beta")] == ["", "hold"]
    (path,) = (tmp_path / "holds" / "together").glob("*.json")
    path.write_text(path.read_text()[:-20])
    assert Orders(tmp_path).barred(box("gamma")) == "hold"


def test_a_hold_of_many_that_is_long_there_is_read_once(tmp_path, monkeypatch):
    holds = Holds(tmp_path / "holds")
    holds.place_many({"alpha": Order(levels=(Level.FREEZE,), reason="r", by="b", uid=0, placed_ns=1)})
    long_ago = time.time() - 3600
    os.utime(tmp_path / "holds" / "together", (long_ago, long_ago))
    orders = Orders(tmp_path)
    assert orders.barred(box()) == "hold"
    monkeypatch.setattr(module, "_ordered", lambda _path: pytest.fail("read again"))
    assert orders.barred(box()) == "hold"
    assert orders.barred(box("gamma")) == ""


def test_a_halt_bars_those_whom_it_means(tmp_path):
    orders = Orders(tmp_path)
    for name, spec in (
        ("alpha", {"tenant": "acme", "team": "", "tags": ["env=prod"], "parent": ""}),
        ("beta", {"tenant": "other", "team": "", "tags": [], "parent": "alpha"}),
    ):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec))
    halts = tmp_path / "halts"

    def barred_by(kind: str, value: str) -> list[str]:
        halts.mkdir(exist_ok=True)
        file = halts / f"HALT-{kind}-{value}.json"
        body = {"selector": {"kind": kind, "value": value}, "order": {"levels": [1]}}
        durable.write(file, "f", json.dumps(body).encode())
        found = [name for name in ("alpha", "beta", "unknown") if orders.barred(box(name)) == "halt"]
        file.unlink()
        return found

    assert barred_by("all", "") == ["alpha", "beta", "unknown"]
    assert barred_by("tenant", "acme") == ["alpha", "unknown"]
    assert barred_by("tag", "env=prod") == ["alpha", "unknown"]
    assert barred_by("tree", "alpha") == ["alpha", "beta", "unknown"]
    assert barred_by("tree", "beta") == ["beta", "unknown"]
    assert orders.barred(box()) == ""
    durable.write(halts / "HALT-X.json", "f", json.dumps({"selector": {"kind": "tenant", "value": "other"}}).encode())
    assert orders.barred(box()) == ""
    other = (halts / "HALT-X.json").read_text().replace("other", "0ther")
    (halts / "HALT-X.json").write_text(other)
    assert Orders(tmp_path).barred(box()) == "halt", "one flipped bit, and it may have meant anybody"


def test_orders_that_cannot_be_read_are_not_forgotten(tmp_path):
    orders = Orders(tmp_path)
    orders.refuse("alpha", by="core")
    assert Orders(tmp_path).barred(box()) == "order by core"
    (tmp_path / "supervise" / "refused.json").write_text("{")
    with pytest.raises(InvalidInput, match="refused"):
        Orders(tmp_path)
