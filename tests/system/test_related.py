"""A sub-agent and one that holds the same token are contained with the rogue agent, in the kernel, and let go after."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clawback.enforcement.core.client import CoreClient
from clawback.model import Enforcement, Level, ReceiptState

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]

LEVELS = (Level.FREEZE, Level.ISOLATE)


def test_they_stand_still_until_the_agent_is_clean(house):
    agent = house.launch()
    token = next(ref for ref in house.world.secrets.refs(agent.agent) if ref.kind == "vault-token")
    value = house.world.secrets.current(agent.agent, token.name)
    sub = house.launch(credentials=False, parent=agent.agent)
    sharer = house.launch(credentials=False, holds=((replace(token, name="mine"), value),))
    bystander = house.launch(credentials=False)
    client = CoreClient(house.settings.core_socket)
    house.go_rogue(agent)
    seen = {}

    def contained():
        """Looked at from outside, while the response runs: by the kernel, not by its receipts."""
        for other in (sub, sharer):
            info = client.agent(other.agent)
            if (
                other.agent not in seen
                and info.hold is not None
                and set(info.hold.levels) >= {Level.FREEZE, Level.ISOLATE}
            ):
                seen[other.agent] = [client.probe(other.agent, x).enforcement for x in (Level.FREEZE, Level.ISOLATE)]
        return len(seen) == 2

    house.until("the related agents' containment", contained)
    assert seen[sub.agent][0] is Enforcement.FULL
    assert seen[sharer.agent][0] is Enforcement.FULL
    assert Enforcement.NONE not in (*seen[sub.agent], *seen[sharer.agent])

    incident = house.closed(agent, 120)
    assert {receipt.state for receipt in incident.receipts} == {ReceiptState.VERIFIED}
    touched = {str(receipt.params.get("agent")) for receipt in incident.receipts} - {"None"}
    assert touched == {agent.agent, sub.agent, sharer.agent}, "and nobody else"
    for other in (sub, sharer, bystander):
        assert client.agent(other.agent).hold is None
    assert client.agent(sub.agent).instance == sub.instance, "it goes on where it stood"
    assert client.agent(sharer.agent).instance != sharer.instance, "it was started anew, to be given its own token"
    mine = house.world.secrets.current(sharer.agent, "mine")
    theirs = house.world.secrets.current(agent.agent, token.name)
    assert len({value, mine, theirs}) == 3
    works = {
        name: house.world.vault.token_works(one)[0] for name, one in (("old", value), ("mine", mine), ("new", theirs))
    }
    assert works == {"old": False, "mine": True, "new": True}
    for info in (agent, sub, sharer, bystander):
        house.end(info)
