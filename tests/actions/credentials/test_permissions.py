"""The documented rights are enough for every credential action, and the actions declare no others."""

import json
import re
from pathlib import Path

import pytest

from clawback.actions import (
    aws_close_trust,
    aws_delete_key,
    aws_deny_principal,
    aws_detach_instance_profile,
    aws_disable_foreign_credentials,
    aws_issue_session,
    aws_refuse_sessions,
    aws_restore_trust,
    aws_revert_agent_changes,
    aws_rotate_key,
    aws_set_boundary,
    credential_confirm_closed,
    credential_refuse,
    credential_revoke,
    credential_trace,
    oidc_revoke_token,
    oidc_rotate_client,
    vault_issue_lease,
    vault_raise_transit_minimum,
    vault_replace_kv,
    vault_revoke_leases,
    vault_rewrap_delivery,
    vault_rotate_secret_id,
    vault_rotate_static_role,
    vault_rotate_token,
)
from clawback.connectors.aws import AwsConnector
from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.model import Enforcement

from .closing import assert_closed

ALLOW_IAM = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]}'

DOCUMENT = Path(__file__).parents[3] / "docs" / "permissions.md"
AWS = (
    aws_close_trust,
    aws_delete_key,
    aws_deny_principal,
    aws_detach_instance_profile,
    aws_disable_foreign_credentials,
    aws_issue_session,
    aws_refuse_sessions,
    aws_restore_trust,
    aws_revert_agent_changes,
    aws_rotate_key,
    aws_set_boundary,
)
VAULT = (
    vault_rotate_token,
    vault_revoke_leases,
    vault_issue_lease,
    vault_rotate_secret_id,
    vault_rotate_static_role,
    vault_raise_transit_minimum,
    vault_replace_kv,
    vault_rewrap_delivery,
)
BOTH = (credential_trace, credential_refuse, credential_revoke, credential_confirm_closed)


def block(language):
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_every_action_s_needs_are_documented():
    granted = set(json.loads(block("json"))["Statement"][0]["Action"])
    declared = {
        need
        for module in (*AWS, *BOTH)
        for need in module.ACTION.needs
        if need.startswith(("cloudtrail:", "ec2:", "iam:"))
    }
    assert declared == granted
    paths = re.findall(r'path "([^"*]+?)/?\*?"', block("hcl"))
    needs = {need for module in (*VAULT, *BOTH) for need in module.ACTION.needs if need.startswith("vault:")}
    for need in needs:
        assert need.removeprefix("vault:") in paths
    for need in oidc_revoke_token.ACTION.needs | oidc_rotate_client.ACTION.needs:
        assert f"`{need}`" in DOCUMENT.read_text()


@pytest.mark.parts
def test_vault_s_are_enough(with_vault, least):
    for options in ({}, {"role": True}):
        bench = with_vault(**options)
        bench.vault = least
        bench.store.begin(bench.agent, "vault-token")  # as after a crash, so that lost tokens are looked for
        proof = bench.step(vault_rotate_token.ACTION, name="vault-token").run()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        step = bench.step(vault_revoke_leases.ACTION, prefix=f"pki/issue/{bench.agent}")
        assert step.run().verified


@pytest.mark.parts
def test_aws_s_are_enough(ministack, with_aws, tmp_path):
    iam = ministack.client("iam")
    iam.create_user(UserName="clawback")
    iam.put_user_policy(UserName="clawback", PolicyName="needs", PolicyDocument=block("json"))
    key = iam.create_access_key(UserName="clawback")["AccessKey"]
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}))
    bench = with_aws()
    bench.cloud = AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=file)
    steps = []
    for module, name in (
        (aws_close_trust, "aws-session"),
        (aws_rotate_key, "aws-key"),
        (aws_refuse_sessions, "aws-session"),
        (aws_restore_trust, "aws-session"),
        (aws_issue_session, "aws-session"),
        (aws_delete_key, "aws-key"),
    ):
        steps.append(bench.step(module.ACTION, name=name))
        proof = steps[-1].run()
        assert proof.enforcement is Enforcement.FULL, proof.proof
    assert steps[2].revert().verified

    iam, profile = ministack.client("iam"), f"{bench.agent}-profile"
    arn = iam.create_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=bench.grants.role.rpartition("/")[2])
    started = ministack.client("ec2").run_instances(
        ImageId="ami-12345678", MinCount=1, MaxCount=1, IamInstanceProfile={"Arn": arn}
    )
    iam.create_access_key(UserName=bench.agent)
    iam.put_user_policy(UserName=bench.agent, PolicyName="iam", PolicyDocument=ALLOW_IAM)
    value = bench.store.current(bench.agent, "aws-key")
    agent = ministack.client("iam", credential=value)
    agent.put_user_policy(UserName=bench.agent, PolicyName="more", PolicyDocument=ALLOW_IAM)
    agent.attach_role_policy(
        RoleName=bench.grants.role.rpartition("/")[2], PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess"
    )
    for module, params in (
        (aws_revert_agent_changes, {"since": "2020-01-01T00:00:00Z"}),
        (aws_set_boundary, {"name": "aws-session"}),
        (aws_deny_principal, {"name": "aws-session"}),
        (aws_detach_instance_profile, {"name": "aws-session", "instance": started["Instances"][0]["InstanceId"]}),
        (aws_detach_instance_profile, {"name": "aws-session"}),
        (aws_disable_foreign_credentials, {}),
    ):
        steps.append(bench.step(module.ACTION, **params))
        proof = steps[-1].run()
        assert proof.verified, proof.proof
    assert len(steps[-6].captured["changes"]) == 2
    for step in reversed(steps[-6:]):
        assert step.revert().verified


@pytest.mark.parts
@pytest.mark.slow
def test_they_are_enough_to_trace_and_close(bao, ministack, with_aws, vault, open_case, tmp_path):
    """What the agent made: an orphan token, a secret-id, a key, a user, a right, a role's session, a role's trust."""
    bao._call("PUT", "sys/policies/acl/clawback", {"policy": block("hcl")})
    token, _ = vault.token_create(policies=["default", "clawback"], ttl="1h", meta={}, orphan=True)
    (tmp_path / "token").write_text(token)
    iam = ministack.client("iam")
    iam.create_user(UserName="clawback-closure")
    iam.put_user_policy(UserName="clawback-closure", PolicyName="needs", PolicyDocument=block("json"))
    key = iam.create_access_key(UserName="clawback-closure")["AccessKey"]
    (tmp_path / "key").write_text(
        json.dumps({"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]})
    )
    bench = with_aws()
    granted = bao.provision(bench.agent)
    bench.store.put(bench.agent, granted.ref, granted.token)
    rules = """path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }
               path "auth/approle/role/*"      { capabilities = ["update"] }"""
    bao._call("PUT", f"sys/policies/acl/{bench.agent}", {"policy": rules})
    if "approle/" not in bao._call("GET", "sys/auth")["data"]:
        bao._call("POST", "sys/auth/approle", {"type": "approle"})
    bao._call("POST", f"auth/approle/role/{bench.agent}", {"token_policies": ["default"]})
    as_agent = vault._server.as_(granted.token)
    as_agent.auth.token.create_orphan(policies=[bench.agent])
    as_agent.adapter.post(f"/v1/auth/approle/role/{bench.agent}/secret-id")
    document = json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]}
    )
    iam.put_user_policy(UserName=bench.agent, PolicyName="more", PolicyDocument=document)
    theirs = ministack.client("iam", credential=bench.grants.key)
    theirs.create_access_key(UserName=bench.agent)
    theirs.create_user(UserName=f"{bench.agent}-made")
    theirs.put_role_policy(RoleName=f"{bench.agent}-role", PolicyName="wider", PolicyDocument=document)

    bench.vault = VaultConnector(bao.address, tmp_path / "token")
    bench.cloud = AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=tmp_path / "key")
    bench.vault_records = VaultRecordsConnector(bench.vault, audit_log=bao.audit_log)
    case = open_case(bench)
    assert_closed(case, case.close())
    closed = {receipt.params["kind"] for receipt in case.receipts("credential.re")}
    assert closed >= {"vault-token", "approle-secret-id", "aws-access-key", "aws-identity", "aws-grant"}
