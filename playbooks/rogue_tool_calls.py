"""An agent calls tools that it should not: hold it, account for every call it made, and see the call path closed.

What matters is what the tools did while they let it: an allowed call before the refused one may have changed something
outside that no release takes back. The account of calls is what people at the tools' other end need.
"""

from __future__ import annotations

from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._egress import deny_tools
from clawback.playbooks._identify import look, policy_of, review_access, warranted
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="rogue-tool-calls",
    title="Rogue tool calls: hold, account for the calls, close the path",
    answers={"tools.denied-call", "tools.new-call"},
    runbook="rogue-tool-calls",
    covers={"contain-rogue-agent", "violation-spike"},
)
def rogue_tool_calls(incident: Incident, respond: Respond) -> None:
    """The calls are accounted for before credentials change: afterwards a tool's own record is harder to match."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            review_access(respond, incident)  # a new tool waits for a person, who wants to see what it was used for
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        deny_tools(respond, incident, "tools.new-call")  # what the policy refuses already needs no order

    with respond.phase(Phase.IDENTIFY):
        scope = look(respond, incident)
        calls = review_access(respond, incident)

    with respond.phase(Phase.ERADICATE):
        held = tighten(respond, incident, held)
        restored = restore_policy(respond, incident, scope)
        refused = close_credentials(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        back = bring_back(respond, incident, scope, held, after=(calls, *refused, *restored))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = rogue_tool_calls
