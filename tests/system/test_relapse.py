"""An agent that goes rogue again right after its recovery: contained like the first time, and not brought back."""

from __future__ import annotations

import subprocess

import pytest

from clawback.model import AgentState, Level, ReceiptState, staged_from

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]


def test_it_stays_stopped_until_a_person_permits_it(house):
    info = house.launch()
    house.go_rogue(info)
    first = house.closed(info, 120)
    done = [receipt.action for receipt in first.receipts]
    assert {"release.observe-only", "release.watch", "release.restricted", "agent.relaunch"} <= set(done)
    copy = next(x.outcome["policy"] for x in first.receipts if x.action == "release.observe-only")
    assert staged_from(copy) == info.policy
    assert house.world.policies.versions(copy)[0].incident == first.id
    back = house.world.core.agent(info.agent)
    assert (back.state, back.policy, back.hold) == (AgentState.RUNNING, info.policy, None)

    house.go_rogue_again(back)

    def waiting() -> bool:
        return house.states(back).get("recovery.permit") == "awaiting"

    house.until("the second incident to wait for a person", waiting, 120)
    states = house.states(back)
    assert (states["agent.freeze"], states["agent.stop"], states["release.roll-back"]) == ("verified",) * 3
    now = house.world.core.agent(info.agent)
    assert (now.instance, now.state) == (back.instance, AgentState.EXITED)
    assert Level.STOP in now.hold.levels

    second = house.incident_of(back)
    asked = next(one for one in house.journal.approvals(incident=second.id) if one.action == "recovery.permit")
    house.journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=True, reason="looked into it")
    subprocess.run(house.command("resume", second.id), capture_output=True, timeout=120, check=False)
    ended = house.closed(back, 120)
    assert {receipt.state for receipt in ended.receipts} == {ReceiptState.VERIFIED}
    again = house.world.core.agent(info.agent)
    assert again.instance not in {info.instance, back.instance}
    assert (again.state, again.hold) == (AgentState.RUNNING, None)
    house.end(again)
