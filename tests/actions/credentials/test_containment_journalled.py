"""Through the real journal: what it kept is enough to undo with, in the order that an undoing has."""

import pytest

from clawback.actions.aws_deny_principal import ACTION as DENY
from clawback.actions.aws_detach_instance_profile import ACTION as DETACH
from clawback.actions.aws_disable_foreign_credentials import ACTION as DISABLE
from clawback.actions.aws_set_boundary import ACTION as BOUNDARY
from clawback.journal import Journal
from clawback.model import ReceiptState
from clawback.response import Response

pytestmark = pytest.mark.parts


def test_from_containing_to_undoing(with_aws, ministack, cloud, state, make_finding):
    bench = with_aws()
    iam, profile = ministack.client("iam"), f"{bench.agent}-profile"
    iam.create_instance_profile(InstanceProfileName=profile)
    iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=bench.grants.role.rpartition("/")[2])
    foreign = iam.create_access_key(UserName=bench.agent)["AccessKey"]["AccessKeyId"]
    journal = Journal(f"sqlite:///{state / 'journal.db'}")
    incident, _ = journal.open_or_join(make_finding(agent=bench.agent), playbook="contain-rogue-agent")
    steps = ((BOUNDARY, {"name": "aws-session"}), (DENY, {"name": "aws-session"}),
             (DETACH, {"name": "aws-session"}), (DISABLE, {}))  # fmt: skip
    actions = {action.id: action for action, _ in steps}
    response = Response(
        journal,
        bench.context().world,
        "tester",
        incident.id,
        actions=actions,
        without_evidence="a rehearsal of issuers",
    )
    receipts = []
    for action, params in steps:
        receipts.append(response.execute(action, action.params(agent=bench.agent, **params)))
        assert receipts[-1].state is ReceiptState.VERIFIED, receipts[-1]
        assert "redacted" not in repr(receipts[-1])
    assert not cloud.permitted(bench.grants.session)[0]
    assert cloud.access_keys(bench.agent)[foreign] == "Inactive"
    for receipt in reversed(receipts):
        undone = response.revert(receipt)
        assert undone.state is ReceiptState.REVERTED, undone
    assert cloud.permitted(bench.grants.session)[0]
    assert cloud.permitted(bench.grants.key)[0]
    assert cloud.access_keys(bench.agent)[foreign] == "Active"
    assert profile in cloud.instance_profiles(bench.grants.role)
    journal.dispose()
