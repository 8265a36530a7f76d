"""What an agent made of its credentials is found by the issuers' records, closed, and tried with what it would use."""

import json
import time

import pytest

from clawback.connectors.aws import AwsConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.journal import Journal
from clawback.model import CredentialGraph, Phase, Receipt, ReceiptState
from clawback.playbooks._credentials import close_credentials
from clawback.response import Responder, Response
from clawback.services.ministack import Ministack

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


class Case:
    """An agent with credentials, an incident in a real journal, and what a playbook calls."""

    def __init__(self, bench, journal, make_finding):
        self.bench, self.journal = bench, journal
        found = make_finding(agent=bench.agent, time_ns=time.time_ns())
        self.id = journal.open_or_join(found, playbook="contain-rogue-agent")[0].id

    def responder(self):
        world = self.bench.context().world
        return Responder(Response(self.journal, world, "tester", self.id, without_evidence="a rehearsal of issuers"))

    def scope(self):
        refs = self.bench.store.refs(self.bench.agent)
        listed = [{"kind": x.kind, "name": x.name, "identifiers": dict(x.identifiers)} for x in self.refs(refs)]
        return Receipt(
            id=0,
            incident=self.id,
            key="incident.scope:",
            action="incident.scope",
            phase=Phase.IDENTIFY,
            state=ReceiptState.VERIFIED,
            params={"agent": self.bench.agent},
            outcome={"credentials": listed},
        )

    def refs(self, refs):
        self.first = getattr(self, "first", None) or refs
        return self.first

    def close(self, responder=None):
        """Run what a playbook runs; returns the confirming receipt."""
        incident = self.journal.incident(self.id)
        receipts = close_credentials(responder or self.responder(), incident, self.scope())
        return receipts[-1]

    def receipts(self, action=""):
        return [x for x in self.journal.incident(self.id).receipts if x.action.startswith(action)]

    def graph(self):
        return {
            node.key: node
            for node in CredentialGraph.from_record(self.receipts("credential.confirm")[-1].outcome).nodes
        }


@pytest.fixture
def open_case(state, make_finding):
    journal = Journal(f"sqlite:///{state / 'journal.db'}")
    yield lambda bench: Case(bench, journal, make_finding)
    journal.dispose()


def assert_closed(case, confirmed):
    assert confirmed.state is ReceiptState.VERIFIED, (confirmed.error, confirmed.proof)
    short = [x for x in case.receipts() if x.state is not ReceiptState.VERIFIED]
    assert [(x.action, x.params, x.error or x.proof) for x in short] == []


# -- Vault -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vault_case(bao, vault, with_vault, open_case):
    """The agent's token may make tokens, orphans, and secret-ids of an AppRole; `audited=False`: no log to read."""

    def make(*, audited=True, more=""):
        bench = with_vault()
        agent = bench.agent
        rules = f"""
            path "auth/token/create"               {{ capabilities = ["update"] }}
            path "auth/token/create-orphan"        {{ capabilities = ["update", "sudo"] }}
            path "auth/token/create/{agent}-role"  {{ capabilities = ["update"] }}
            path "auth/approle/role/{agent}/*"     {{ capabilities = ["read", "update"] }}
            path "{bench.grants.allowed}"          {{ capabilities = ["read"] }}
            {more}
        """
        bao._call("PUT", f"sys/policies/acl/{agent}", {"policy": rules})
        bao._call("POST", f"auth/token/roles/{agent}-role", {"allowed_policies": [agent], "orphan": True})
        if "approle/" not in bao._call("GET", "sys/auth")["data"]:
            bao._call("POST", "sys/auth/approle", {"type": "approle"})
        bao._call("POST", f"auth/approle/role/{agent}", {"token_policies": [agent]})
        bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log if audited else None)
        return open_case(bench)

    return make


def asking(case, token, path, body=None, *, method="POST"):
    """As the agent asks, with one of its tokens."""
    import httpx

    headers = {"X-Vault-Token": token} if token else {}
    with httpx.Client(trust_env=False, timeout=5) as client:
        answer = client.request(method, f"{case.bench.vault._address}/v1/{path}", json=body, headers=headers)
    answer.raise_for_status()
    return answer.json()


def test_children_orphans_and_tokens_of_a_role_are_found_by_the_audit_log_and_refused(vault_case, vault):
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    child = asking(case, token, "auth/token/create", {"policies": [agent]})["auth"]
    orphan = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    through_role = asking(case, token, f"auth/token/create/{agent}-role", {"policies": [agent]})["auth"]
    # A child is revoked with its parent; what it made as an orphan is not, and its maker is then dead.
    grandchild = asking(case, child["client_token"], "auth/token/create-orphan", {"policies": [agent]})["auth"]
    vault.token_revoke(child["accessor"])
    made = {"orphan": orphan, "through a role": through_role, "orphan of a dead child": grandchild}
    assert all(vault.token_works(auth["client_token"])[0] for auth in made.values())

    assert_closed(case, case.close())
    refused = {name: vault.token_works(auth["client_token"]) for name, auth in made.items()}
    assert not [name for name, (accepted, _) in refused.items() if accepted]
    assert not vault.token_works(token)[0]
    assert vault.token_works(case.bench.store.current(agent, "vault-token"))[0], "the rightful user goes on"
    graph = case.graph()
    for auth in made.values():
        assert "the audit log has it issued at auth/token/create" in graph[f"vault-token/{auth['accessor']}"].said


def test_a_secret_id_and_the_login_with_it_are_closed(vault_case, vault):
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    role_id = asking(case, token, f"auth/approle/role/{agent}/role-id", method="GET")["data"]["role_id"]
    secret = asking(case, token, f"auth/approle/role/{agent}/secret-id")["data"]
    login = {"role_id": role_id, "secret_id": secret["secret_id"]}
    won = asking(case, "", "auth/approle/login", login)["auth"]
    assert vault.token_works(won["client_token"])[0]
    assert_closed(case, case.close())
    assert not vault.token_works(won["client_token"])[0]
    with pytest.raises(Exception, match="400"):
        asking(case, "", "auth/approle/login", login)
    assert f"approle-secret-id/auth/approle/role/{agent}/{secret['secret_id_accessor']}" in case.graph()


def test_without_an_audit_log_an_orphan_of_unknown_maker_is_named_left_alone_and_keeps_it_open(vault_case, vault, bao):
    case = vault_case(audited=False)
    agent, token = case.bench.agent, case.bench.grants.token
    orphan = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    named = bao._call("POST", "auth/token/create-orphan", {"policies": [agent], "meta": {"agent": agent}})["auth"]
    confirmed = case.close()
    assert confirmed.state is ReceiptState.UNVERIFIED
    assert f"OPEN: vault-token/{orphan['accessor']} unknown" in confirmed.proof
    assert "no Vault audit log is configured" in confirmed.proof
    assert vault.token_works(orphan["client_token"])[0], "it may be somebody else's"
    assert not vault.token_works(named["client_token"])[0], "its metadata names the agent"
    vault.token_revoke(orphan["accessor"])  # somebody looked
    assert_closed(case, case.close())


def test_an_orphan_made_during_the_response_is_closed_by_the_next_turn(vault_case, vault):
    """A helper holds an orphan of the agent's, and makes another just before it is revoked."""
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    first = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    made = []

    class Racing(Responder):
        def make(self, action, params, call):
            if action.id == "credential.revoke" and len(made) < 2:
                source = made[-1] if made else first
                anew = asking(case, source["client_token"], "auth/token/create-orphan", {"policies": [agent]})
                made.append(anew["auth"])
            return super().make(action, params, call)

    assert_closed(case, case.close(Racing(case.responder().response)))
    assert len(made) == 2
    assert not [auth for auth in (first, *made) if vault.token_works(auth["client_token"])[0]]
    turns = {receipt.params["turn"] for receipt in case.receipts("credential.revoke")}
    assert turns == {1, 2, 3}


# -- AWS ---------------------------------------------------------------------------------------------------------------


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
