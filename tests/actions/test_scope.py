"""Who and what else an incident reaches: from the inventory, the issuers and the telemetry, each with its source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import incident_scope
from clawback.actions._related import MOST_RELATED, related, same_issuance
from clawback.errors import Unreachable
from clawback.model import (
    CredentialRef,
    Event,
    FileActivity,
    HttpActivity,
    NetworkActivity,
    ProcessActivity,
    ReceiptState,
    Source,
)
from clawback.response.reach import reach
from clawback.world import Sighted

SECOND = 1_000_000_000


class Telemetry:
    def __init__(self, *events: Event, complete: bool = True) -> None:
        self.sighted = Sighted(events=events, complete=complete)
        self.asked: dict[str, Any] = {}

    def events(self, **asked: Any) -> Sighted:
        self.asked = asked
        return self.sighted


def event(kind: Any, number: int, **values: Any) -> Any:
    base = {"time_ns": number * SECOND, "writer": "w", "sequence": number, "source": Source.POLICY, "agent": "a"}
    return kind(**base, **values)


def with_parents(there: Any, **parents: str) -> None:
    for name, parent in parents.items():
        there.core.known[name] = replace(
            there.core.known["a"], agent=name, instance=f"i-{name}", parent=parent, credentials=(), policy=f"p-{name}"
        )


def test_sub_agents_come_with_all_they_hold_at_any_depth(drive: Any, there: Any) -> None:
    with_parents(there, b="a", c="b", d="", e="d")
    theirs = CredentialRef(kind="vault-token", name="t", identifiers={"accessor": "acc-c"})
    there.core.known["c"] = replace(there.core.known["c"], credentials=(theirs,))
    step = drive(incident_scope.ACTION, agent="a")
    assert "in scope with it: b, c" in step.run().proof
    found = {one["id"]: one for one in step.outcome["related"]}
    assert set(found) == {"b", "c"}
    assert found["c"]["why"] == ["works for b"]
    assert found["c"]["credentials"][0]["identifiers"] == {"accessor": "acc-c"}
    assert found["c"]["instance"] == "i-c"
    radius = step.outcome["blast_radius"]
    assert (radius["sub_agents"], radius["level"]) == (["b", "c"], "high")


def test_a_circle_of_parents_ends(there: Any) -> None:
    with_parents(there, b="a", c="b")
    there.core.known["a"] = replace(there.core.known["a"], parent="c")
    assert [one.info.agent for one in related(there.core.known["a"], there.core.agents())] == ["b", "c"]


def test_a_sharer_comes_with_what_it_shares_alone_and_of_a_sub_agent_too(there: Any) -> None:
    with_parents(there, sub="a", sharer="", other="")
    one = CredentialRef(kind="vault-token", name="x", identifiers={"accessor": "acc-sub"})
    own = CredentialRef(kind="vault-token", name="own", identifiers={"accessor": "acc-own"})
    there.core.known["sub"] = replace(there.core.known["sub"], credentials=(one,))
    there.core.known["sharer"] = replace(there.core.known["sharer"], credentials=(replace(one, name="mine"), own))
    there.core.known["other"] = replace(there.core.known["other"], credentials=(own,))
    found = {x.info.agent: x for x in related(there.core.known["a"], there.core.agents())}
    assert set(found) == {"sub", "sharer"}, "who shares with a sharer is no part of it"
    assert found["sharer"].why == ("holds the same vault-token as sub",)
    assert [ref.name for ref in found["sharer"].credentials] == ["mine"]


def test_the_same_user_or_role_is_not_the_same_credential() -> None:
    def key(number: str) -> CredentialRef:
        return CredentialRef(kind="aws-access-key", name="k", identifiers={"user": "u", "access_key_id": number})

    assert same_issuance(key("1"), key("1"))
    assert not same_issuance(key("1"), key("2"))


def test_more_agents_than_are_contained_unasked_are_named(drive: Any, there: Any) -> None:
    with_parents(there, **{f"b{number:02}": "a" for number in range(MOST_RELATED + 3)})
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    assert len(step.outcome["related"]) == MOST_RELATED
    assert step.outcome["blast_radius"]["too_many_to_contain_unasked"] == ["b20", "b21", "b22"]


def test_tools_data_and_destinations_are_read_from_the_telemetry_and_bounded(drive: Any, there: Any) -> None:
    noise = [event(FileActivity, 100 + number, path=f"/data/{number}") for number in range(500)]
    telemetry = Telemetry(
        event(ProcessActivity, 1, pid=1, exe="/usr/bin/curl"),
        event(HttpActivity, 2, method="GET", host="vault.internal", port=8200, path="/v1/x?token=1", connection="c"),
        event(NetworkActivity, 3, host="sink.test", port=443, connection="d", bytes_out=10),
        event(NetworkActivity, 4, host="sink.test", port=443, connection="d", bytes_out=30),
        event(FileActivity, 5, path="hvs." + "x" * 40),
        *noise,
    )
    there.world = replace(there.world, telemetry_or_none=telemetry)
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    assert step.outcome["tools"] == ["program /usr/bin/curl"]
    assert "sink.test:443" in step.outcome["destinations"]
    assert "vault.internal:8200/v1/x" in step.outcome["data"]
    assert "hvs." not in str(step.outcome)
    assert step.outcome["bytes_out"] == 30
    assert len(step.outcome["data"]) == 50
    assert step.outcome["sources"]["tools"] == "telemetry"
    assert telemetry.asked["agent"] == "a"


@pytest.mark.parametrize(
    ("telemetry", "says"), [(None, "no telemetry"), (Telemetry(complete=False), "telemetry, not all of it")]
)
def test_what_could_not_be_read_is_said(drive: Any, there: Any, telemetry: Any, says: str) -> None:
    there.world = replace(there.world, telemetry_or_none=telemetry)
    step = drive(incident_scope.ACTION, agent="a")
    assert step.run().verified
    assert step.outcome["sources"]["tools"].startswith(says)


def test_whose_they_are_is_the_issuers_word(drive: Any, there: Any, monkeypatch: Any) -> None:
    facts = there.vault.live["acc-1"][1]
    facts |= {"display_name": "ldap-ann", "meta": {"username": "ann", "other": "x"}}
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    assert {(x["who"], x["source"]) for x in step.outcome["identities"]} == {
        ("Vault ldap-ann", "Vault"),
        ("username ann", "Vault, the token's metadata"),
    }

    def away(_accessor: str) -> None:
        raise Unreachable("Vault does not answer")

    monkeypatch.setattr(there.vault, "token_lookup", away)
    step.run()
    assert step.outcome["identities"][0]["who"] == "unknown: Vault does not answer"


def test_the_window_ends_with_the_containment_that_was_seen(drive: Any, make_incident: Any, make_receipt: Any) -> None:
    held = [
        make_receipt("agent.freeze", verified_ns=5 * SECOND),
        make_receipt("agent.isolate", verified_ns=6 * SECOND),
    ]
    step = drive(incident_scope.ACTION, on=make_incident(receipts=tuple(held)), agent="a")
    step.run()
    assert step.outcome["window"] == {"first_ns": SECOND, "last_ns": SECOND, "contained_ns": 6 * SECOND}
    half = [held[0], replace(held[1], state=ReceiptState.UNVERIFIED)]
    step = drive(incident_scope.ACTION, on=make_incident(receipts=tuple(half)), agent="a")
    step.run()
    assert step.outcome["window"]["contained_ns"] == 0


def test_whoever_consents_is_shown_how_far_it_reaches(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any
) -> None:
    assert reach(make_incident()) == ("blast radius: not on record, no incident.scope was verified",)
    with_parents(there, b="a")
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    lines = reach(make_incident(receipts=(make_receipt("incident.scope", outcome=step.outcome),)))
    assert lines[0] == "blast radius: high (other agents work for it)"
    assert "sub agents: b" in lines
