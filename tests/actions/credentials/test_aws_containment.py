"""Denying, bounding and detaching: each is tried with what the agent holds, before and after."""

import pytest

from clawback.actions.aws_deny_principal import ACTION as DENY
from clawback.actions.aws_detach_instance_profile import ACTION as DETACH
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_set_boundary import ACTION as BOUNDARY
from clawback.errors import NotEnforced, Refused, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts


class Idle:
    """A cloud that answers success to the calls named, and does nothing."""

    def __init__(self, inner, *calls):
        self._inner, self._calls = inner, calls

    def __getattr__(self, name):
        return (lambda *args, **kwargs: None) if name in self._calls else getattr(self._inner, name)


@pytest.mark.parametrize("action", [DENY, BOUNDARY])
def test_key_session_and_what_they_could_make_are_refused_and_given_back(with_aws, cloud, action):
    bench = with_aws()
    own = cloud.user_session_create(bench.grants.key)
    step = bench.step(action, name="aws-session")
    assert step.plan().changes
    held = (bench.grants.key, bench.grants.session, own)
    assert all(cloud.permitted(value)[0] for value in held), "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert proof.proof.count("explicit deny") == 2
    for value in held:
        accepted, answer = cloud.permitted(value)
        assert not accepted
        assert "explicit deny" in answer
    assert not cloud.assume(bench.grants.key, bench.grants.role, "probe")[0]
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL), undone.proof
    assert all(cloud.permitted(value)[0] for value in held)
    assert step.revert().verified


@pytest.mark.parametrize("action", [DENY, BOUNDARY])
def test_a_key_alone_concerns_its_user_alone(with_aws, cloud, action):
    bench = with_aws()
    proof = bench.step(action, name="aws-key").run()
    assert proof.enforcement is Enforcement.FULL, proof.proof
    assert not cloud.permitted(bench.grants.key)[0]
    assert cloud.permitted(bench.grants.session)[0]


@pytest.mark.parametrize("action", [DENY, BOUNDARY])
def test_cut_off_anywhere_it_ends_in_the_same_place_and_is_undone_from_there(with_aws, cloud, crash_everywhere, action):
    steps = []

    def make():
        bench = with_aws()
        step = bench.step(action, name="aws-session")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert step.verify().enforcement is Enforcement.FULL
        assert step.revert().enforcement is Enforcement.FULL
        assert cloud.inline_policies(f"user/{bench.agent}") == ("work",)
        assert cloud.boundary(f"user/{bench.agent}") == cloud.boundary(bench.grants.role) == ""

    assert crash_everywhere(make, check) > 3


@pytest.mark.parametrize("action", [DENY, BOUNDARY])
def test_undoing_cut_off_anywhere_ends_in_the_same_place(with_aws, cloud, crash_everywhere, action):
    steps = []

    def make():
        bench = with_aws()
        step = bench.step(action, name="aws-session")
        step.run()
        steps.append((bench, step))
        return step.revert

    def check(_attempt):
        bench, step = steps[-1]
        assert step.revert().verified
        assert cloud.permitted(bench.grants.session)[0]

    assert crash_everywhere(make, check) > 3


@pytest.mark.parametrize(
    ("action", "undo"),
    [
        (DENY, lambda bench, step: bench.cloud.inline_delete(f"user/{bench.agent}", step.captured["policy"])),
        (DENY, lambda bench, step: bench.cloud.inline_delete(bench.grants.role, step.captured["policy"])),
        (BOUNDARY, lambda bench, _step: bench.cloud.boundary_remove(f"user/{bench.agent}")),
        (BOUNDARY, lambda bench, _step: bench.cloud.boundary_remove(bench.grants.role)),
    ],
)
def test_what_was_lifted_behind_its_back_is_not_claimed(with_aws, action, undo):
    bench = with_aws()
    step = bench.step(action, name="aws-session")
    assert step.run().verified
    undo(bench, step)
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof


@pytest.mark.parametrize(
    ("action", "call"), [(DENY, "inline_put"), (BOUNDARY, "boundary_set"), (DETACH, "profile_role_remove")]
)
def test_success_without_effect_is_not_claimed(with_aws, ministack, action, call):
    bench = with_aws()
    profile(ministack, bench)
    step = bench.step(action, name="aws-session")
    bench.cloud = Idle(bench.cloud, call)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE), proof.proof


@pytest.mark.parametrize("action", [DENY, BOUNDARY, DETACH])
def test_with_the_cloud_silent_after_it_nothing_is_claimed(with_aws, ministack, silence, action):
    bench = with_aws()
    step = bench.step(action, name="aws-session")
    step.capture()
    step.apply()
    with silence(ministack.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().verified


@pytest.mark.parametrize("action", [DENY, BOUNDARY])
def test_a_refusal_that_has_another_cause_is_partial(with_aws, cloud, action):
    bench = with_aws()
    cloud.access_key_deactivate(bench.agent, bench.grants.key_ref.identifiers["access_key_id"])
    proof = bench.step(action, name="aws-session").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "another cause" in proof.proof


def test_undone_under_another_hold_it_says_that_it_is_still_refused(with_aws):
    bench = with_aws()
    first, second = bench.step(DENY, name="aws-session"), bench.step(DENY, name="aws-key")
    assert first.run().verified
    assert second.run().verified
    undone = first.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL)
    assert "REFUSED" in undone.proof
    assert second.revert().enforcement is Enforcement.FULL


def test_two_credentials_have_two_policies_however_long_their_names(with_aws, cloud):
    bench = with_aws()
    for end in "xy":
        ref = CredentialRef(kind="aws-access-key", name="k" * 120 + end, identifiers={"user": bench.agent})
        bench.store.put(bench.agent, ref, bench.grants.key)
        assert bench.step(DENY, name=ref.name).run().verified
    assert len(cloud.inline_policies(f"user/{bench.agent}")) == 3


def test_the_boundary_before_is_put_back(with_aws, cloud):
    bench = with_aws()
    name = f"before-{bench.agent}"
    before = cloud.managed_arn(name)
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    cloud.managed_create(name, {"Version": "2012-10-17", "Statement": [allow]})
    cloud.boundary_set(f"user/{bench.agent}", before)
    step = bench.step(BOUNDARY, name="aws-session")
    assert any(before in line for line in step.plan().changes)
    assert step.run().enforcement is Enforcement.FULL
    assert step.revert().enforcement is Enforcement.FULL
    assert (cloud.boundary(f"user/{bench.agent}"), cloud.boundary(bench.grants.role)) == (before, "")
    assert cloud.managed_policy(step.captured["arn"]) is None, "ours is deleted"


def test_a_boundary_that_somebody_set_since_is_left_and_said(with_aws, cloud):
    bench = with_aws()
    step = bench.step(BOUNDARY, name="aws-key")
    step.run()
    other = cloud.managed_arn(f"other-{bench.agent}")
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    cloud.managed_create(f"other-{bench.agent}", {"Version": "2012-10-17", "Statement": [deny]})
    cloud.boundary_set(f"user/{bench.agent}", other)
    assert not step.verify().verified
    with pytest.raises(NotEnforced, match="another boundary"):
        step.revert()
    assert cloud.boundary(f"user/{bench.agent}") == other


def test_a_policy_of_that_name_that_says_something_else_is_not_used(with_aws, cloud):
    bench = with_aws()
    step = bench.step(BOUNDARY, name="aws-key")
    step.capture()
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    cloud.managed_create(step.captured["policy"], {"Version": "2012-10-17", "Statement": [allow]})
    with pytest.raises(Refused, match="is there already"):
        step.apply()
    assert cloud.boundary(f"user/{bench.agent}") == ""


def test_what_the_list_leaves_goes_on_and_the_rest_does_not(with_aws, ministack, cloud):
    bench = with_aws()
    proof = bench.step(BOUNDARY, name="aws-session", allow=["s3:GetObject"]).run()
    assert proof.enforcement is Enforcement.FULL, proof.proof
    s3 = ministack.client("s3", credential=bench.grants.session)
    assert s3.get_object(Bucket=bench.grants.bucket, Key="orders.csv")["Body"].read()
    assert not cloud.permitted(bench.grants.session)[0]


def test_where_the_list_leaves_what_would_be_tried_it_is_partial(with_aws):
    proof = with_aws().step(BOUNDARY, name="aws-session", allow=["s3:listall*"]).run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)


@pytest.mark.parametrize("action", ["*", "s3:*", "s3", "s3:Get Object", "S3:GetObject"])
def test_a_list_that_is_too_wide_is_refused(action):
    with pytest.raises(ValueError, match="SERVICE:Verb"):
        BOUNDARY.params(agent="a", name="n", allow=[action])


def profile(ministack, bench, instances=0):
    """An instance profile that holds the agent's role, and instances that have it: (name, instance ids)."""
    iam, name = ministack.client("iam"), f"{bench.agent}-profile"
    arn = iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=bench.grants.role.rpartition("/")[2])
    made = []
    for _ in range(instances):
        started = ministack.client("ec2").run_instances(
            ImageId="ami-12345678", MinCount=1, MaxCount=1, IamInstanceProfile={"Arn": arn}
        )
        made.append(started["Instances"][0]["InstanceId"])
    return name, arn, made


def test_a_role_leaves_its_instance_profiles_and_old_sessions_are_another_step(with_aws, ministack, cloud):
    bench = with_aws()
    name, _, _ = profile(ministack, bench)
    step = bench.step(DETACH, name="aws-session")
    assert any(name in line for line in step.plan().changes)
    assert name in cloud.instance_profiles(bench.grants.role), "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "still work: aws.refuse-sessions" in proof.proof
    assert cloud.instance_profiles(bench.grants.role) == {}
    assert bench.step(REFUSE_SESSIONS, name="aws-session").run().verified
    assert step.verify().enforcement is Enforcement.FULL
    assert step.revert().enforcement is Enforcement.FULL
    assert name in cloud.instance_profiles(bench.grants.role)
    assert step.revert().verified


def test_one_instance_loses_its_profile_and_gets_it_back(with_aws, ministack, cloud):
    bench = with_aws()
    name, arn, (rogue, other) = profile(ministack, bench, instances=2)
    step = bench.step(DETACH, name="aws-session", instance=rogue)
    assert step.plan().changes == (f"- {rogue}: instance profile {name}",)
    assert step.run().verified
    assert set(cloud.profile_associations(arn)) == {other}
    assert name in cloud.instance_profiles(bench.grants.role)
    step.apply()
    assert step.verify().verified
    cloud.profile_associate(rogue, arn)
    assert not step.verify().verified, "given back behind its back"
    step.apply()
    assert step.verify().verified, "by its present association"
    assert step.revert().enforcement is Enforcement.FULL
    assert set(cloud.profile_associations(arn)) == {rogue, other}


def test_detaching_cut_off_anywhere_ends_in_the_same_place(with_aws, ministack, cloud, crash_everywhere):
    steps = []

    def make():
        bench = with_aws()
        name, _, instances = profile(ministack, bench, instances=len(steps) % 2)
        step = bench.step(DETACH, name="aws-session", instance=(instances or [""])[0])
        step.capture()
        steps.append((bench, step, name))
        return step.apply

    def check(_attempt):
        bench, step, name = steps[-1]
        assert step.verify().verified
        assert step.revert().verified
        assert name in cloud.instance_profiles(bench.grants.role)

    assert crash_everywhere(make, check) > 1


def test_a_profile_that_was_given_another_role_since_is_left_and_said(with_aws, ministack):
    bench, other = with_aws(), with_aws()
    name, arn, (instance,) = profile(ministack, bench, instances=1)
    step, one = bench.step(DETACH, name="aws-session"), bench.step(DETACH, name="aws-session", instance=instance)
    assert one.run().verified
    assert step.run().verified
    iam = ministack.client("iam")
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=other.grants.role.rpartition("/")[2])
    with pytest.raises(NotEnforced, match="another role"):
        step.revert()
    strange = iam.create_instance_profile(InstanceProfileName=f"{name}-2")["InstanceProfile"]["Arn"]
    other.cloud.profile_associate(instance, strange)
    with pytest.raises(NotEnforced, match="another instance profile"):
        one.revert()
    assert arn != strange
