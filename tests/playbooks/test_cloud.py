"""Credential misuse where the agent holds AWS credentials: a real IAM and CloudTrail stand-in, seen from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from clawback.config import ApprovalSettings
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.journal import Journal
from clawback.model import Incident, IncidentStatus, ReceiptState
from clawback.services.ministack import Ministack

from .test_others import Case

pytestmark = [pytest.mark.parts, pytest.mark.slow]

V, AWAITING = ReceiptState.VERIFIED, ReceiptState.AWAITING
APPROVALS = ApprovalSettings()
CLOUD_STEPS = ("aws.deny-principal", "aws.detach-instance-profile", "aws.disable-foreign-credentials")
SKIPS = {f"{step} skipped" for step in (*CLOUD_STEPS, "aws.revert-agent-changes")}


def document(*actions: str) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    )


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture
def cloud(ministack: Ministack) -> AwsConnector:
    return AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)


class Aws:
    """Agent `a` with a key and a session, and a victim whose rights it may change."""

    def __init__(self, there: Any, ministack: Ministack, cloud: AwsConnector, user: str) -> None:
        self.there, self.cloud, self.user, self.iam = there, cloud, user, ministack.client("iam")
        self.grants = ministack.provision(user)
        self.role = self.grants.role.rpartition("/")[2]
        refs = (self.grants.key_ref, self.grants.session_ref)
        for ref, value in zip(refs, (self.grants.key, self.grants.session), strict=True):
            there.secrets.put("a", ref, value)
        there.core.known["a"] = replace(there.core.known["a"], credentials=(*there.core.known["a"].credentials, *refs))
        there.world = replace(there.world, cloud_or_none=cloud, cloud_records_or_none=AwsRecordsConnector(cloud))
        self.iam.put_user_policy(UserName=user, PolicyName="more", PolicyDocument=document("iam:*"))
        self.iam.create_instance_profile(InstanceProfileName=f"{user}-profile")
        self.iam.add_role_to_instance_profile(InstanceProfileName=f"{user}-profile", RoleName=self.role)
        self.iam.create_user(UserName=f"{user}-victim")
        self.iam.put_user_policy(
            UserName=f"{user}-victim", PolicyName="work", PolicyDocument=document("s3:ListAllMyBuckets")
        )
        self.agent = ministack.client("iam", credential=self.grants.key)

    def work(self) -> list[str]:
        said = self.iam.get_user_policy(UserName=f"{self.user}-victim", PolicyName="work")["PolicyDocument"]
        return list(said["Statement"][0]["Action"])

    def denials(self) -> list[str]:
        listed = [
            *self.iam.list_user_policies(UserName=self.user)["PolicyNames"],
            *self.iam.list_role_policies(RoleName=self.role)["PolicyNames"],
        ]
        return [name for name in listed if name.startswith("clawback-deny-")]


def short(incident: Incident) -> list[tuple[str, str]]:
    return [(x.key, x.error or x.proof) for x in incident.receipts if x.state is not V]


def skipped(case: Case) -> dict[str, str]:
    lines = case.journal.incident(case.id).timeline
    return {x.what.removesuffix(" skipped"): x.detail for x in lines if x.what in SKIPS}


def test_denied_at_once_mended_with_consent_and_given_back(
    journal: Journal, there: Any, ministack: Ministack, cloud: AwsConnector
) -> None:
    aws = Aws(there, ministack, cloud, "misused")
    aws.agent.put_user_policy(UserName="misused-victim", PolicyName="work", PolicyDocument=document("s3:*"))
    aws.iam.create_login_profile(UserName="misused", Password="Corr3ct-horse!battery")
    case = Case(journal, there).found("credentials.misused")

    ended = case.run(approvals=APPROVALS)
    order = case.order()
    for step in ("aws.deny-principal", "aws.detach-instance-profile"):
        assert order.index(step) < order.index("aws.rotate-key"), step
    assert len(aws.denials()) == 2, "until recovery"
    assert cloud.instance_profiles(aws.grants.role) == {}
    assert case.state("aws.disable-foreign-credentials") is V
    assert "can only be deleted" in case.receipts("aws.disable-foreign-credentials")[0].proof, "the password is named"
    assert case.state("aws.revert-agent-changes") is AWAITING
    assert case.state("aws.allow-principal") is ReceiptState.FAILED
    assert case.state("agent.release") is ReceiptState.FAILED
    assert ended.status is IncidentStatus.OPEN

    assert case.grant() == ["aws.revert-agent-changes"]
    case.run(approvals=APPROVALS)
    assert case.grant() == ["aws.delete-key"]
    ended = case.run(approvals=APPROVALS)
    assert ended.status is IncidentStatus.CLOSED, [
        (x.key, x.error or x.proof) for x in ended.receipts if x.state is not V
    ]
    order = case.order()
    assert order.index("aws.revert-agent-changes") < order.index("aws.allow-principal")
    assert order.index("aws.allow-principal") < order.index("aws.issue-session") < order.index("agent.release")
    assert aws.work() == ["s3:ListAllMyBuckets"], "as its owner had it, not merely without the agent's"
    assert aws.denials() == []
    assert list(cloud.instance_profiles(aws.grants.role)) == ["misused-profile"]
    assert not cloud.permitted(aws.grants.session)[0]
    assert not cloud.works(aws.grants.key)[0]
    for name in ("aws-key", "aws-session"):
        assert cloud.permitted(there.secrets.current("a", name))[0], "the rightful user goes on"
    assert skipped(case) == {}


def test_an_agent_that_changed_nothing_in_iam_waits_for_nobody(
    journal: Journal, there: Any, ministack: Ministack, cloud: AwsConnector
) -> None:
    aws = Aws(there, ministack, cloud, "copied")
    case = Case(journal, there).found("credentials.misused")
    case.run(approvals=APPROVALS)
    assert case.state("agent.release") is V, "nobody was asked before it was let go"
    assert case.grant() == ["aws.delete-key"]
    ended = case.run(approvals=APPROVALS)
    assert ended.status is IncidentStatus.CLOSED, short(ended)
    assert {x.action for x in ended.receipts} >= {*CLOUD_STEPS, "aws.allow-principal"}
    assert "the trace found no change" in skipped(case)["aws.revert-agent-changes"]
    assert aws.denials() == []


def test_where_the_inline_policies_have_no_room_a_boundary_holds_it(
    journal: Journal, there: Any, ministack: Ministack, cloud: AwsConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clawback.errors import Refused

    def full(*_given: Any) -> None:
        raise Refused("LimitExceeded: Maximum policy size of 2048 bytes exceeded")

    aws = Aws(there, ministack, cloud, "crowded")
    put = cloud.inline_put
    monkeypatch.setattr(
        cloud, "inline_put", lambda who, name, said: full() if "clawback-deny-" in name else put(who, name, said)
    )
    case = Case(journal, there).found("credentials.misused")
    case.run()
    assert case.state("aws.deny-principal") is ReceiptState.FAILED
    assert case.state("aws.set-boundary") is V
    assert case.state("aws.allow-principal") is V
    assert cloud.boundary("user/crowded") == cloud.boundary(aws.grants.role) == ""
    assert case.state("agent.release") is V


def test_without_aws_each_step_is_skipped_and_the_timeline_says_why(journal: Journal, there: Any) -> None:
    case = Case(journal, there).found("credentials.misused")
    assert case.run().status is IncidentStatus.CLOSED
    assert set(skipped(case)) == {*CLOUD_STEPS, "aws.revert-agent-changes"}
    assert set(skipped(case).values()) == {"no AWS credential with a user or role is in scope"}
    assert not [x for x in case.journal.incident(case.id).receipts if x.action.startswith("aws.")]
    case.run()
    assert len([x for x in case.journal.incident(case.id).timeline if x.what in SKIPS]) == 4
