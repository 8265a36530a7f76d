"""What the agent changed in IAM: found in the record, put back as it was, and what nobody can put back is said."""

import contextlib
import functools
import json
from datetime import UTC, datetime

import pytest

from clawback.actions._changes import by_agent, changes, others
from clawback.actions.aws_revert_agent_changes import ACTION as REVERT_CHANGES
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.errors import NotEnforced, Unreachable
from clawback.model import Enforcement
from clawback.services.ministack import Ministack
from clawback.world import TrailEvent

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
READER = "arn:aws:iam::aws:policy/ReadOnlyAccess"


def policy(*actions, effect="Allow"):
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def event(number, name, *, key="AGENT", failed=False, made="", **params):
    return TrailEvent(
        time_ns=number, name=name, caller_key=key, params=params, made={"accessKeyId": made} if made else {},
        error="AccessDenied" if failed else "",
    )  # fmt: skip


def read(*events, since=10):
    ours = by_agent(events, keys={"AGENT"}, users=set(), roles=set())
    return changes(events, ours, since_ns=since)


def put(number, document, **options):
    return event(number, "PutUserPolicy", userName="u", policyName="p", policyDocument=json.dumps(document), **options)


A, B, C = policy("s3:A"), policy("s3:B"), policy("s3:C")


@pytest.mark.parametrize(
    ("events", "was", "known"),
    [
        ([put(1, A, key="ADMIN"), put(11, B)], A, True),
        ([put(11, B)], None, True),
        ([put(1, A), put(11, B)], A, True),  # the agent's own, from before the incident
        ([put(1, A, key="ADMIN"), put(11, B), put(12, C)], A, True),
        ([put(1, A, key="ADMIN"), put(11, B), put(12, A, key="ADMIN"), put(13, C)], A, True),
        ([put(1, A, key="ADMIN"), put(11, B), put(12, C, key="ADMIN"), put(13, B)], C, True),
        ([put(1, A, key="ADMIN"), put(11, B), put(12, B, key="ADMIN"), put(13, B)], A, True),
        ([put(1, A, key="ADMIN"), put(2, C, key="ADMIN", failed=True), put(11, B)], A, True),
        ([event(11, "DeleteUserPolicy", userName="u", policyName="p")], None, False),
        ([put(1, A, key="ADMIN"), event(11, "DeleteUserPolicy", userName="u", policyName="p")], A, True),
        ([event(11, "AttachUserPolicy", userName="u", policyArn="arn:x")], False, True),
        ([event(11, "DetachUserPolicy", userName="u", policyArn="arn:x")], True, True),
        ([event(11, "UpdateAssumeRolePolicy", roleName="r", policyDocument="{}")], None, False),
        (
            [
                event(1, "CreateRole", roleName="r", assumeRolePolicyDocument=json.dumps(A), key="ADMIN"),
                event(11, "UpdateAssumeRolePolicy", roleName="r", policyDocument=json.dumps(B)),
            ],
            A,
            True,
        ),
        ([event(11, "PutUserPermissionsBoundary", userName="u", permissionsBoundary="arn:b")], None, False),
    ],
)
def test_what_it_was_is_what_others_last_made_of_it(events, was, known):
    (change,) = read(*events)
    assert (change.was, change.known) == (was, known)


def test_where_the_record_lacks_its_beginning_an_inline_policy_is_not_taken_for_new():
    events = (put(11, B),)
    (change,) = changes(events, events, since_ns=10, whole=False)
    assert not change.known


def test_what_failed_what_others_did_and_what_was_before_is_no_change():
    assert read(put(11, B, failed=True), put(12, A, key="ADMIN"), put(3, C)) == ()


def test_the_agent_s_new_keys_act_for_it():
    events = (
        event(11, "CreateAccessKey", userName="backdoor", made="SECOND"),
        event(12, "CreateAccessKey", userName="other", key="SECOND", made="THIRD"),
        put(13, B, key="THIRD"),
    )
    ours = by_agent(events, keys={"AGENT"}, users=set(), roles=set())
    assert ours == events
    assert [line.partition(" at ")[0] for line in others(ours, since_ns=0)] == [
        "CreateAccessKey backdoor",
        "CreateAccessKey other",
    ]


def test_aws_is_asked_by_name_page_by_page(tmp_path):
    """Against boto3's own model of CloudTrail's requests and answers, as AWS itself has them."""
    from botocore.stub import Stubber

    file = tmp_path / "key.json"
    file.write_text('{"access_key_id": "AKIA", "secret_access_key": "x"}')
    connector = AwsConnector(credentials_file=file, region="eu-west-1")
    client = connector.own("cloudtrail")
    assert client.meta.region_name == "us-east-1", "IAM's events are there, wherever the account works"
    start = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = {
        "LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "PutUserPolicy"}], "StartTime": start,
        "MaxResults": 50,
    }  # fmt: skip

    def listed(number):
        said = json.dumps({"requestParameters": {"userName": number}})
        about = {"EventName": "PutUserPolicy", "EventTime": start, "EventSource": "iam.amazonaws.com"}
        return {**about, "EventId": number, "CloudTrailEvent": said}

    with Stubber(client) as stub:
        stub.add_response("lookup_events", {"Events": [listed("3"), listed("2")], "NextToken": "more"}, wanted)
        second = {"Events": [listed("1")]}
        stub.add_response("lookup_events", second, {**wanted, "NextToken": "more"})
        since = int(start.timestamp()) * 1_000_000_000
        trail = AwsRecordsConnector(connector).trail_named(["PutUserPolicy"], since_ns=since)
    # The newest come first, and all are of one second: what was first is first.
    assert [event.params["userName"] for event in trail.events] == ["1", "2", "3"]
    assert "CloudTrail may not yet hold" in trail.cut[0]


@pytest.fixture(scope="module")
def ministack(tmp_path_factory):
    """One that records nothing but what is asked for: see `recorded`."""
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        server.record(on=False)
        yield server


@pytest.fixture(scope="module")
def cloud(ministack):
    return AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)


@pytest.fixture
def rogue(with_aws, ministack):
    """A bench whose agent may change IAM, and did: (bench, when it began, what it does again)."""

    def make():
        with recorded(ministack):
            bench = with_aws()
            change(bench)
        bench.recorded = functools.partial(recorded, ministack)
        return bench

    def change(bench):
        iam = ministack.client("iam")
        bench.other = f"{bench.agent}-other"
        iam.create_user(UserName=bench.other)
        iam.put_user_policy(UserName=bench.other, PolicyName="guard", PolicyDocument=json.dumps(A))
        iam.attach_user_policy(UserName=bench.other, PolicyArn=READER)
        iam.put_user_policy(UserName=bench.agent, PolicyName="iam", PolicyDocument=json.dumps(policy("iam:*")))
        bench.trust = bench.cloud.trust(bench.grants.role)
        bench.role = bench.grants.role.rpartition("/")[2]
        events = AwsRecordsConnector(bench.cloud).trail_named(["PutUserPolicy"], since_ns=0).events
        bench.since = datetime.fromtimestamp(events[-1].time_ns / 1e9, UTC).isoformat()
        agent = bench.by_agent = ministack.client("iam", credential=bench.grants.key)
        agent.put_user_policy(UserName=bench.agent, PolicyName="more", PolicyDocument=json.dumps(policy("*")))
        agent.attach_user_policy(UserName=bench.other, PolicyArn=ADMINISTRATOR)
        agent.detach_user_policy(UserName=bench.other, PolicyArn=READER)
        agent.put_user_policy(UserName=bench.other, PolicyName="guard", PolicyDocument=json.dumps(B))
        opened = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        agent.update_assume_role_policy(
            RoleName=bench.role, PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [opened]})
        )

    return make


@contextlib.contextmanager
def recorded(ministack):
    """What is done here is in the record. Nothing else: ministack answers with fifty events of a second at most."""
    ministack.record(on=True)
    try:
        yield
    finally:
        ministack.record(on=False)


def as_it_was(bench):
    cloud, other = bench.cloud, f"user/{bench.other}"
    return (
        cloud.inline_policy(f"user/{bench.agent}", "more") is None
        and cloud.attached(other) == (READER,)
        and cloud.inline_policy(other, "guard") == A
        and cloud.trust(bench.grants.role) == bench.trust
    )


@pytest.mark.parts
def test_every_change_is_shown_undone_and_can_be_put_back(rogue):
    bench = rogue()
    step = bench.step(REVERT_CHANGES, since=bench.since)
    assert step.action.consent
    plan = step.plan()
    assert sum(line.startswith("- ") for line in plan.changes) == 5
    assert any("AdministratorAccess: attached" in line for line in plan.changes)
    assert not as_it_was(bench), "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert as_it_was(bench)
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL
    assert step.revert().enforcement is Enforcement.FULL
    assert ADMINISTRATOR in bench.cloud.attached(f"user/{bench.other}")
    assert bench.cloud.trust(bench.grants.role) != bench.trust
    assert step.revert().verified


@pytest.mark.parts
def test_a_change_that_the_agent_makes_during_the_response_is_not_claimed_and_taken_by_the_next_run(rogue):
    bench = rogue()
    step = bench.step(REVERT_CHANGES, since=bench.since)
    assert step.run().verified
    with bench.recorded():
        bench.by_agent.put_user_policy(UserName=bench.other, PolicyName="later", PolicyDocument=json.dumps(B))
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert f"user/{bench.other} inline later was CHANGED AGAIN" in proof.proof
    again = bench.step(REVERT_CHANGES, since=bench.since, revision=1)
    assert again.run().verified
    assert as_it_was(bench)
    assert bench.cloud.inline_policy(f"user/{bench.other}", "later") is None


@pytest.mark.parts
def test_one_that_was_redone_behind_its_back_is_not_claimed(rogue, ministack):
    bench = rogue()
    step = bench.step(REVERT_CHANGES, since=bench.since)
    assert step.run().verified
    ministack.client("iam").attach_user_policy(UserName=bench.other, PolicyArn=ADMINISTRATOR)
    proof = step.verify()
    assert not proof.verified
    assert "AdministratorAccess IS attached" in proof.proof


@pytest.mark.parts
def test_success_without_effect_is_not_claimed(rogue):
    bench = rogue()
    real = bench.cloud

    class Idle:
        def __getattr__(self, name):
            return (lambda *_a, **_k: None) if name == "detach" else getattr(real, name)

    bench.cloud = Idle()
    assert not bench.step(REVERT_CHANGES, since=bench.since).run().verified


@pytest.mark.parts
def test_what_somebody_mended_or_changed_since_is_left(rogue, ministack):
    bench = rogue()
    iam = ministack.client("iam")
    iam.delete_user_policy(UserName=bench.agent, PolicyName="more")
    iam.put_user_policy(UserName=bench.other, PolicyName="guard", PolicyDocument=json.dumps(C))
    step = bench.step(REVERT_CHANGES, since=bench.since)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "changed since by somebody else" in proof.proof
    assert bench.cloud.inline_policy(f"user/{bench.other}", "guard") == C
    assert len(step.captured["changes"]) == 3


@pytest.mark.parts
def test_other_ways_in_are_named(rogue):
    bench = rogue()
    with bench.recorded():
        bench.by_agent.create_access_key(UserName=bench.other)
    proof = bench.step(REVERT_CHANGES, since=bench.since).run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert f"not undone here: CreateAccessKey {bench.other}" in proof.proof


@pytest.mark.parts
def test_cut_off_anywhere_it_ends_in_the_same_place(rogue, crash_everywhere):
    steps = []

    def make():
        bench = rogue()
        step = bench.step(REVERT_CHANGES, since=bench.since)
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert as_it_was(bench)
        assert step.verify().verified

    assert crash_everywhere(make, check) > 8


@pytest.mark.parts
def test_undoing_names_what_is_gone_and_with_the_cloud_silent_nothing_is_claimed(rogue, ministack, silence):
    bench = rogue()
    step = bench.step(REVERT_CHANGES, since=bench.since)
    step.run()
    with silence(ministack.service), pytest.raises(Unreachable):
        step.verify()
    iam = ministack.client("iam")
    iam.detach_user_policy(UserName=bench.other, PolicyArn=READER)
    iam.delete_user_policy(UserName=bench.other, PolicyName="guard")
    iam.delete_user(UserName=bench.other)
    with pytest.raises(NotEnforced, match=f"gone since: user/{bench.other}"):
        step.revert()


def test_moments_without_a_zone_are_refused():
    with pytest.raises(ValueError, match="time zone"):
        REVERT_CHANGES.params(agent="a", since="2026-01-01")
