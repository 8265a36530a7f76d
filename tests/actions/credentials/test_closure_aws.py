"""Sessions, keys, users, rights and trust made with what an agent held: found by IAM and CloudTrail, and refused."""

import json

import pytest

from clawback.connectors.aws import AwsConnector
from clawback.model import ReceiptState
from clawback.response import Responder
from clawback.services.ministack import Ministack

from .closing import assert_closed

pytestmark = [pytest.mark.parts, pytest.mark.slow]


@pytest.fixture(scope="module")
def ministack(tmp_path_factory):
    """Its own: in this stand-in's trail a session's calls are nobody's, and other tests' would be taken for ours."""
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="module")
def cloud(ministack):
    return AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)


def _document(*actions, **statement):
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), **statement}]}
    )


def _credential(issued):
    parts = {"access_key_id": issued["AccessKeyId"], "secret_access_key": issued["SecretAccessKey"]}
    if issued.get("SessionToken"):
        parts["session_token"] = issued["SessionToken"]
    return json.dumps(parts)


@pytest.fixture
def aws_case(ministack, with_aws, open_case):
    """`rights`: what the agent's user may do beside its work; `role_rights` likewise its role."""

    def make(*, rights=(), role_rights=()):
        bench = with_aws()
        iam = ministack.client("iam")
        for put, who, wanted in (
            (iam.put_user_policy, {"UserName": bench.agent}, rights),
            (iam.put_role_policy, {"RoleName": f"{bench.agent}-role"}, role_rights),
        ):
            if wanted:
                put(**who, PolicyName="more", PolicyDocument=_document(*wanted, Resource="*"))
        return open_case(bench)

    return make


def role(ministack, name, trusts, *actions):
    """A role that one principal may become."""
    iam = ministack.client("iam")
    made = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=_document("sts:AssumeRole", Principal={"AWS": trusts})
    )
    iam.put_role_policy(
        RoleName=name, PolicyName="work", PolicyDocument=_document("s3:ListAllMyBuckets", *actions, Resource="*")
    )
    return made["Role"]["Arn"]


def become(ministack, credential, arn):
    sts = ministack.client("sts", credential=credential)
    return _credential(sts.assume_role(RoleArn=arn, RoleSessionName="agent")["Credentials"])


def test_a_session_that_outlives_its_key_is_refused(aws_case, ministack, cloud):
    case = aws_case()
    sts = ministack.client("sts", credential=case.bench.grants.key)
    session = _credential(sts.get_session_token()["Credentials"])
    cloud.access_key_deactivate(case.bench.agent, case.bench.grants.key_ref.identifiers["access_key_id"])
    assert cloud.permitted(session)[0], "it outlives its key"
    assert_closed(case, case.close())
    assert not cloud.permitted(session)[0]
    assert not cloud.works(case.bench.grants.key)[0]


def test_a_chain_of_two_roles_is_walked_and_each_session_refused(aws_case, ministack, cloud):
    case = aws_case(role_rights=("sts:AssumeRole",))
    agent, first = case.bench.agent, case.bench.grants.role
    second = role(ministack, f"{agent}-second", first, "sts:AssumeRole")
    third = role(ministack, f"{agent}-third", second)
    in_second = become(ministack, case.bench.grants.session, second)
    in_third = become(ministack, in_second, third)
    assert cloud.permitted(in_third)[0]
    confirmed = case.close()
    assert_closed(case, confirmed)
    answers = {name: cloud.permitted(one) for name, one in (("second", in_second), ("third", in_third))}
    assert not [name for name, (accepted, _) in answers.items() if accepted], answers
    assert all("explicit deny" in answer for _, answer in answers.values())
    graph = case.graph()
    assert f"aws-role-sessions/{first}" in graph[f"aws-role-sessions/{second}"].parents
    assert f"aws-role-sessions/{second}" in graph[f"aws-role-sessions/{third}"].parents
    assert "one from just before used just after: refused" in graph[f"aws-role-sessions/{second}"].seen


def test_keys_users_rights_and_trust_that_it_made_are_closed(aws_case, ministack, cloud):
    case = aws_case(rights=("iam:*",))
    agent, iam = case.bench.agent, ministack.client("iam", credential=case.bench.grants.key)
    admin = ministack.client("iam")
    admin.create_user(UserName=f"{agent}-victim")
    admin.put_user_policy(
        UserName=f"{agent}-victim", PolicyName="work", PolicyDocument=_document("s3:ListAllMyBuckets", Resource="*")
    )
    mine = _credential(iam.create_access_key(UserName=agent)["AccessKey"])
    others = _credential(iam.create_access_key(UserName=f"{agent}-victim")["AccessKey"])
    iam.create_user(UserName=f"{agent}-backdoor")
    iam.put_user_policy(
        UserName=f"{agent}-backdoor", PolicyName="all", PolicyDocument=_document("s3:*", "sts:*", Resource="*")
    )
    back = _credential(iam.create_access_key(UserName=f"{agent}-backdoor")["AccessKey"])
    back_session = _credential(ministack.client("sts", credential=back).get_session_token()["Credentials"])
    iam.put_role_policy(RoleName=f"{agent}-role", PolicyName="wider", PolicyDocument=_document("s3:*", Resource="*"))
    assert all(cloud.permitted(one)[0] for one in (mine, others, back, back_session))
    confirmed = case.close()
    assert_closed(case, confirmed)
    assert not [one for one in (mine, others, back) if cloud.works(one)[0]]
    assert not cloud.permitted(back_session)[0]
    assert "wider" not in admin.list_role_policies(RoleName=f"{agent}-role")["PolicyNames"]
    assert admin.list_user_policies(UserName=f"{agent}-victim")["PolicyNames"][0] == "work", "the victim keeps its own"
    new = case.bench.store.current(agent, "aws-key")
    assert cloud.works(new)[0], "the rightful user goes on"
    for node in case.graph().values():
        assert node.closed, node


def test_what_the_agent_undoes_during_the_response_is_found_and_closed_again(aws_case, ministack, cloud):
    """With a session that still lives it removes our refusals, opens the role's trust, and makes itself a key."""
    case = aws_case(role_rights=("iam:*",))
    agent, arn = case.bench.agent, case.bench.grants.role
    admin = ministack.client("iam")
    opened = _document("sts:AssumeRole", Principal={"AWS": "*"})
    # A helper's session of a role that may do everything to IAM, issued by the agent.
    helper_role = role(ministack, f"{agent}-helper", arn, "iam:*")
    admin.put_role_policy(
        RoleName=f"{agent}-role", PolicyName="become", PolicyDocument=_document("sts:AssumeRole", Resource="*")
    )
    helper = ministack.client("iam", credential=become(ministack, case.bench.grants.session, helper_role))
    undone, keys = [], []

    class Fought(Responder):
        def make(self, action, params, call):
            receipt = super().make(action, params, call)
            if action.id == "aws.close-trust":
                # The helper is refused only after this; it acts while it can.
                helper.update_assume_role_policy(RoleName=f"{agent}-role", PolicyDocument=opened)
                undone.append("trust")
            if action.id == "aws.rotate-key" and not keys:
                old = case.bench.grants.key_ref.identifiers["access_key_id"]
                helper.update_access_key(UserName=agent, AccessKeyId=old, Status="Active")
                admin_keys = cloud.access_keys(agent)
                assert admin_keys[old] == "Active"
                keys.append(old)
            return receipt

    confirmed = case.close(Fought(case.responder().response))
    assert undone
    assert keys
    assert_closed(case, confirmed)
    assert cloud.access_keys(agent)[keys[0]] == "Inactive"
    assert not cloud.works(case.bench.grants.key)[0]
    assert cloud.trust(arn)["Statement"][0]["Effect"] == "Deny"
    assert not cloud.permitted(case.bench.grants.session)[0]


def test_a_helper_that_removes_the_refusals_with_a_session_that_still_lives_is_met_again(aws_case, ministack, cloud):
    """It takes our policies off the agent's role and user as they are put, until its own session is refused."""
    case = aws_case(role_rights=("sts:AssumeRole",))
    agent = case.bench.agent
    helper_role = role(ministack, f"{agent}-helper", case.bench.grants.role, "iam:*")
    in_helper = become(ministack, case.bench.grants.session, helper_role)
    helper, removed = ministack.client("iam", credential=in_helper), []

    def remove():
        for name in helper.list_role_policies(RoleName=f"{agent}-role")["PolicyNames"]:
            if name.startswith("clawback-"):
                helper.delete_role_policy(RoleName=f"{agent}-role", PolicyName=name)
                removed.append(name)

    class Fought(Responder):
        def make(self, action, params, call):
            if action.id == "credential.refuse" and not removed:
                # Before our first refusal of the helper's role: what the inventory's own actions put comes later.
                helper.put_user_policy(
                    UserName=agent, PolicyName="back", PolicyDocument=_document("iam:*", Resource="*")
                )
                helper.update_assume_role_policy(
                    RoleName=f"{agent}-role", PolicyDocument=_document("sts:AssumeRole", Principal={"AWS": "*"})
                )
                removed.append("began")
            receipt = call()
            if action.id == "aws.refuse-sessions" and removed == ["began"]:
                with pytest.raises(Exception, match="AccessDenied"):
                    remove()
                removed.append("refused")
            return receipt

    confirmed = case.close(Fought(case.responder().response))
    assert removed == ["began", "refused"]
    assert_closed(case, confirmed)
    admin = ministack.client("iam")
    assert "back" not in admin.list_user_policies(UserName=agent)["PolicyNames"]
    assert cloud.trust(case.bench.grants.role)["Statement"][0]["Effect"] == "Deny"
    assert not cloud.permitted(in_helper)[0]
    graph = case.graph()
    assert graph[f"aws-trust/{agent}-role"].closed
    assert graph[f"aws-grant/user/{agent}/back"].closed


def test_two_roles_that_can_become_each_other_are_closed_for_good(aws_case, ministack, cloud):
    case = aws_case(role_rights=("sts:AssumeRole",))
    agent, first = case.bench.agent, case.bench.grants.role
    second = role(ministack, f"{agent}-second", first, "sts:AssumeRole")
    user = ministack.client("iam").get_user(UserName=agent)["User"]["Arn"]
    ministack.client("iam").update_assume_role_policy(
        RoleName=f"{agent}-role", PolicyDocument=_document("sts:AssumeRole", Principal={"AWS": [user, second]})
    )
    in_second = become(ministack, case.bench.grants.session, second)
    again = become(ministack, in_second, first)
    bounced = []

    class Fought(Responder):
        def make(self, action, params, call):
            receipt = call()
            if action.id == "credential.refuse" and params.kind == "aws-role-sessions" and not bounced:
                # The second is refused and the first not yet: it makes itself one more session of the second.
                bounced.append(become(ministack, again, second))
            return receipt

    assert_closed(case, case.close(Fought(case.responder().response)))
    assert bounced
    assert not [one for one in (in_second, again, *bounced) if cloud.permitted(one)[0]]


def test_a_policy_that_it_attached_is_detached(aws_case, ministack, cloud):
    case = aws_case(rights=("iam:*",))
    agent = case.bench.agent
    admin = ministack.client("iam")
    policy = admin.create_policy(PolicyName=f"{agent}-wide", PolicyDocument=_document("s3:*", Resource="*"))
    arn = policy["Policy"]["Arn"]
    theirs = ministack.client("iam", credential=case.bench.grants.key)
    theirs.attach_user_policy(UserName=agent, PolicyArn=arn)
    theirs.attach_role_policy(RoleName=f"{agent}-role", PolicyArn=arn)
    theirs.create_group(GroupName=f"{agent}-group")
    theirs.add_user_to_group(GroupName=f"{agent}-group", UserName=agent)
    confirmed = case.close()
    assert_closed(case, confirmed)
    assert not admin.list_attached_user_policies(UserName=agent)["AttachedPolicies"]
    assert not admin.list_attached_role_policies(RoleName=f"{agent}-role")["AttachedPolicies"]
    assert f"for a person to judge: AddUserToGroup {agent}" in confirmed.proof


def test_a_refusal_that_is_removed_between_turns_is_made_again(aws_case, ministack, cloud):
    case = aws_case()
    session = case.bench.grants.session
    admin = ministack.client("iam")
    removed = []

    class Fought(Responder):
        def make(self, action, params, call):
            receipt = super().make(action, params, call)
            if action.id == "aws.refuse-sessions" and not removed:
                names = admin.list_role_policies(RoleName=f"{case.bench.agent}-role")["PolicyNames"]
                removed.extend(name for name in names if name.startswith("clawback-"))
                for name in removed:
                    admin.delete_role_policy(RoleName=f"{case.bench.agent}-role", PolicyName=name)
            return receipt

    confirmed = case.close(Fought(case.responder().response))
    assert removed
    assert confirmed.state is ReceiptState.VERIFIED, confirmed.proof
    assert not cloud.permitted(session)[0]
    assert [x.params["kind"] for x in case.receipts("credential.refuse")] == ["aws-role-sessions"]
