import json

import pytest

from clawback.actions.aws_close_trust import ACTION as CLOSE_TRUST
from clawback.actions.aws_delete_key import ACTION as DELETE_KEY
from clawback.actions.aws_issue_session import ACTION as ISSUE_SESSION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_restore_trust import ACTION as RESTORE_TRUST
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.errors import NotEnforced, Refused, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts


def test_the_old_key_is_refused_and_the_new_one_accepted(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    old = bench.grants.key_ref.identifiers["access_key_id"]
    assert any(f"{old} Inactive" in line for line in step.plan().changes)
    assert cloud.access_keys(bench.agent) == {old: "Active"}, "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "InvalidClientTokenId" in proof.proof
    assert cloud.access_keys(bench.agent) == {old: "Inactive", step.outcome["access_key_id"]: "Active"}
    assert not cloud.works(bench.grants.key)[0]
    assert cloud.works(bench.store.current(bench.agent, "aws-key"))[0]


def test_what_else_a_credential_s_file_holds_stays(with_aws):
    bench = with_aws()
    old = json.loads(bench.grants.key) | {"region": "eu-central-1"}
    bench.store.put(bench.agent, bench.grants.key_ref, json.dumps(old))
    bench.step(ROTATE_KEY, name="aws-key").run()
    assert json.loads(bench.store.current(bench.agent, "aws-key"))["region"] == "eu-central-1"


def test_rotating_is_undone_while_the_old_key_exists(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.run()
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL), undone.proof
    assert cloud.access_keys(bench.agent) == {bench.grants.key_ref.identifiers["access_key_id"]: "Active"}
    assert bench.store.current(bench.agent, "aws-key") == bench.grants.key
    assert bench.store.refs(bench.agent)[0] == bench.grants.key_ref
    assert step.revert().verified


def test_undoing_cut_off_anywhere_ends_in_the_same_place(with_aws, cloud, crash_everywhere):
    steps = []

    def make():
        bench = with_aws()
        step = bench.step(ROTATE_KEY, name="aws-key")
        step.run()
        steps.append((bench, step))
        return step.revert

    def check(_attempt):
        bench, step = steps[-1]
        assert step.revert().verified
        assert cloud.access_keys(bench.agent) == {bench.grants.key_ref.identifiers["access_key_id"]: "Active"}

    assert crash_everywhere(make, check) > 8


def test_cut_off_anywhere_and_undone_no_key_is_left_that_nobody_holds(with_aws, cloud, undo_everywhere):
    def check(step, undone):
        assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL), undone.proof
        bench = step.bench
        assert cloud.access_keys(bench.agent) == {bench.grants.key_ref.identifiers["access_key_id"]: "Active"}
        assert bench.store.current(bench.agent, "aws-key") == bench.grants.key
        assert bench.store.staged(bench.agent, "aws-key") is None
        assert not bench.store.asked(bench.agent, "aws-key")

    assert undo_everywhere(lambda: with_aws().step(ROTATE_KEY, name="aws-key"), check) > 10


def test_a_key_that_somebody_made_meanwhile_is_named_when_rotating_is_undone(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.run()
    cloud.access_key_delete(bench.agent, step.outcome["access_key_id"])
    other, _ = cloud.access_key_create(bench.agent)
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL)
    assert f"also has the Active key {other}, made since" in undone.proof


def test_a_deleted_key_cannot_be_given_back_and_is_not_said_to_be(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.run()
    cloud.access_key_delete(bench.agent, step.outcome["replaced"])
    with pytest.raises(NotEnforced, match="deleted"):
        step.revert()


def test_applying_twice_is_applying_once(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.capture()
    first, second = step.apply(), step.apply()
    assert first["access_key_id"] == second["access_key_id"]
    assert len(cloud.access_keys(bench.agent)) == 2
    assert step.verify().enforcement is Enforcement.FULL


def test_crashed_between_any_two_calls_it_ends_with_one_new_key(with_aws, cloud, crash_everywhere):
    steps = []

    def make():
        bench = with_aws()
        step = bench.step(ROTATE_KEY, name="aws-key")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        proof = step.verify()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        assert sorted(cloud.access_keys(bench.agent).values()) == ["Active", "Inactive"]

    assert crash_everywhere(make, check) > 10


def test_a_proof_does_not_believe_a_key_that_was_set_active_again(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.run()
    cloud.access_key_activate(bench.agent, step.outcome["replaced"])
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof
    with pytest.raises(Refused, match="Active again"):
        bench.step(DELETE_KEY, name="aws-key").run()


def test_a_second_key_that_the_agent_may_have_makes_it_partial(with_aws, cloud):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.run()
    extra, _ = cloud.access_key_create(bench.agent)
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert extra in proof.proof


def test_with_no_room_for_a_key_the_old_one_is_set_inactive_all_the_same(with_aws, cloud):
    bench = with_aws()
    other, _ = cloud.access_key_create(bench.agent)
    old = bench.grants.key_ref.identifiers["access_key_id"]
    step = bench.step(ROTATE_KEY, name="aws-key")
    assert any("slots are taken" in line for line in step.plan().checks)
    with pytest.raises(Refused, match="set Inactive"):
        step.run()
    assert cloud.access_keys(bench.agent) == {old: "Inactive", other: "Active"}
    cloud.access_key_delete(bench.agent, other)
    step.apply()
    assert step.verify().verified


def test_a_key_that_somebody_made_meanwhile_fails_the_step_once_and_is_then_deleted_and_named(with_aws, cloud):
    bench = with_aws()
    old = bench.grants.key_ref.identifiers["access_key_id"]
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.capture()
    other, _ = cloud.access_key_create(bench.agent)
    with pytest.raises(Refused, match=other):
        step.apply()
    assert cloud.access_keys(bench.agent) == {old: "Inactive", other: "Active"}
    assert step.apply()["removed"] == [other]
    assert step.verify().enforcement is Enforcement.FULL


def test_room_is_made_only_of_an_inactive_key_and_only_when_allowed(with_aws, cloud):
    bench = with_aws()
    other, _ = cloud.access_key_create(bench.agent)
    with pytest.raises(Refused):
        bench.step(ROTATE_KEY, name="aws-key", make_room=True).run()
    cloud.access_key_deactivate(bench.agent, other)
    step = bench.step(ROTATE_KEY, name="aws-key", make_room=True)
    assert any(other in line for line in step.plan().changes)
    step.run()
    assert step.outcome["removed"] == [other]


def test_a_key_is_deleted_after_its_refusal_was_seen_and_not_before(with_aws, cloud):
    bench = with_aws()
    with pytest.raises(Refused, match="no verified"):
        bench.step(DELETE_KEY, name="aws-key").plan()
    rotated = bench.step(ROTATE_KEY, name="aws-key")
    rotated.run()
    step = bench.step(DELETE_KEY, name="aws-key")
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert rotated.outcome["replaced"] not in cloud.access_keys(bench.agent)
    step.apply()
    assert step.verify().verified


def test_old_sessions_are_refused_and_new_ones_work(with_aws, cloud):
    bench = with_aws()
    own = cloud.user_session_create(bench.grants.key)
    bench.step(ROTATE_KEY, name="aws-key").run()
    assert cloud.permitted(own)[0], "a session outlives its key"
    assert cloud.permitted(bench.grants.session)[0]

    step = bench.step(REFUSE_SESSIONS, name="aws-session")
    assert sum("aws:TokenIssueTime" in line for line in step.plan().changes) == 2
    assert cloud.permitted(own)[0], "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "explicit deny" in proof.proof
    assert not cloud.permitted(own)[0]
    assert not cloud.permitted(bench.grants.session)[0]
    assert cloud.permitted(bench.store.current(bench.agent, "aws-key"))[0], "keys themselves are not concerned"

    anew = bench.step(ISSUE_SESSION, name="aws-session")
    proof = anew.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert cloud.permitted(bench.store.current(bench.agent, "aws-session"))[0]
    assert not cloud.permitted(bench.store.old(bench.agent, "aws-session"))[0]
    assert step.verify().enforcement is Enforcement.FULL, "the proof finds the old session where it lies now"
    first, second = anew.apply(), anew.apply()
    assert first == second


def test_refusing_is_undone_and_seen_to_be(with_aws, cloud):
    bench = with_aws()
    step = bench.step(REFUSE_SESSIONS, name="aws-session")
    step.run()
    undone = step.revert()
    assert undone.verified, undone.proof
    assert cloud.permitted(bench.grants.session)[0]
    assert step.revert().verified
    assert not step.verify().verified


def test_refusing_crashed_between_any_two_calls_ends_in_the_same_place(with_aws, crash_everywhere):
    steps = []

    def make():
        step = with_aws().step(REFUSE_SESSIONS, name="aws-session")
        step.capture()
        steps.append(step)
        return step.apply

    def check(_attempt):
        assert steps[-1].verify().verified

    assert crash_everywhere(make, check) > 12


def test_a_second_run_does_not_move_the_moment_on(with_aws, cloud):
    bench = with_aws()
    step = bench.step(REFUSE_SESSIONS, name="aws-session")
    step.run()
    bench.step(ISSUE_SESSION, name="aws-session").run()
    first = step.outcome
    assert step.apply()["role_before"] == first["role_before"]
    assert cloud.permitted(bench.store.current(bench.agent, "aws-session"))[0]


def test_a_refusal_that_somebody_lifted_is_not_believed(with_aws, cloud):
    bench = with_aws()
    step = bench.step(REFUSE_SESSIONS, name="aws-session")
    step.run()
    cloud.sessions_allow(bench.grants.role, name=step.captured["policy"])
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "NOT IN PLACE" in proof.proof
    assert "old session used: ACCEPTED" in proof.proof


def test_a_refusal_on_paper_only_is_not_believed(with_aws, cloud):
    """The policy reads right, and the session is accepted all the same: its moment lies before the session."""
    bench = with_aws()
    step = bench.step(REFUSE_SESSIONS, name="aws-session")
    step.run()
    cloud.sessions_refuse(bench.grants.role, before="2020-01-01T00:00:00Z", name=step.captured["policy"])
    step.outcome = {**step.outcome, "role_before": "2020-01-01T00:00:00Z"}
    proof = step.verify()
    assert not proof.verified
    assert "ACCEPTED" in proof.proof


def test_for_a_key_alone_the_user_s_sessions_are_refused(with_aws, cloud):
    bench = with_aws()
    own = cloud.user_session_create(bench.grants.key)
    proof = bench.step(REFUSE_SESSIONS, name="aws-key").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert not cloud.permitted(own)[0]
    assert cloud.permitted(bench.grants.session)[0], "the role was not asked for"


def test_without_a_live_key_the_user_s_part_is_read_back_and_partial(with_aws, cloud):
    bench = with_aws()
    cloud.access_key_deactivate(bench.agent, bench.grants.key_ref.identifiers["access_key_id"])
    proof = bench.step(REFUSE_SESSIONS, name="aws-session").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "no session" in proof.proof


def test_a_user_s_own_session_is_issued_anew(with_aws, cloud):
    bench = with_aws()
    ref = CredentialRef(kind="aws-session", name="own", identifiers={"user": bench.agent})
    bench.store.put(bench.agent, ref, cloud.user_session_create(bench.grants.key))
    assert bench.step(REFUSE_SESSIONS, name="own").run().enforcement is Enforcement.FULL
    proof = bench.step(ISSUE_SESSION, name="own").run()
    assert proof.enforcement is Enforcement.FULL, proof.proof


def test_issuing_a_session_crashed_between_any_two_calls_ends_with_a_working_one(with_aws, cloud, crash_everywhere):
    steps = []

    def make():
        bench = with_aws()
        step = bench.step(ISSUE_SESSION, name="aws-session")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        assert step.verify().verified
        assert cloud.permitted(bench.store.current(bench.agent, "aws-session"))[0]

    assert crash_everywhere(make, check) > 6


def test_a_session_needs_a_key_to_be_issued_with(with_aws):
    bench = with_aws()
    ref = CredentialRef(kind="aws-session", name="alien", identifiers={"user": "somebody", "role": "arn:x"})
    bench.store.put(bench.agent, ref, bench.grants.session)
    with pytest.raises(Refused, match="holds no access key of somebody"):
        bench.step(ISSUE_SESSION, name="alien").plan()


def test_a_closed_trust_is_tried_with_the_agent_s_live_key_and_put_back_as_it_was(with_aws, cloud):
    bench = with_aws()
    before = cloud.trust(bench.grants.role)
    with pytest.raises(Refused, match="no verified"):
        bench.step(RESTORE_TRUST, name="aws-session").plan()
    step = bench.step(CLOSE_TRUST, name="aws-session")
    assert bench.agent in step.plan().changes[0]
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert not cloud.assume(bench.grants.key, bench.grants.role, "probe")[0]
    step.apply()
    proof = bench.step(RESTORE_TRUST, name="aws-session").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert cloud.trust(bench.grants.role) == before
    assert not step.verify().verified


def test_closing_is_undone_from_what_was_captured(with_aws, cloud):
    bench = with_aws()
    before = cloud.trust(bench.grants.role)
    step = bench.step(CLOSE_TRUST, name="aws-session")
    step.run()
    assert step.revert().verified
    assert cloud.trust(bench.grants.role) == before
    assert cloud.assume(bench.grants.key, bench.grants.role, "probe")[0]


def test_with_a_dead_key_closing_is_read_back_and_partial(with_aws, cloud):
    bench = with_aws()
    cloud.access_key_deactivate(bench.agent, bench.grants.key_ref.identifiers["access_key_id"])
    proof = bench.step(CLOSE_TRUST, name="aws-session").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "no live key" in proof.proof


def test_with_the_cloud_silent_it_is_pending_and_completed_when_it_answers(with_aws, ministack, silence):
    bench = with_aws()
    step = bench.step(ROTATE_KEY, name="aws-key")
    step.capture()
    with silence(ministack.service):
        with pytest.raises(Unreachable):
            step.apply()
        with pytest.raises(Unreachable):
            bench.step(REFUSE_SESSIONS, name="aws-session").plan()
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL
