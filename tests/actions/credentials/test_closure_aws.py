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
