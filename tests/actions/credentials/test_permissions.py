"""The documented rights are enough for every credential action, and the actions declare no others."""

import json
import re
from pathlib import Path

import pytest

from clawback.actions import (
    aws_close_trust,
    aws_delete_key,
    aws_issue_session,
    aws_refuse_sessions,
    aws_restore_trust,
    aws_rotate_key,
    vault_issue_lease,
    vault_revoke_leases,
    vault_rotate_token,
)
from clawback.connectors.aws import AwsConnector
from clawback.connectors.vault import VaultConnector
from clawback.model import Enforcement

DOCUMENT = Path(__file__).parents[3] / "docs" / "permissions.md"
AWS = (aws_rotate_key, aws_refuse_sessions, aws_close_trust, aws_restore_trust, aws_issue_session, aws_delete_key)
VAULT = (vault_rotate_token, vault_revoke_leases, vault_issue_lease)


def block(language):
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_every_action_s_needs_are_documented():
    granted = set(json.loads(block("json"))["Statement"][0]["Action"])
    declared = {need for module in AWS for need in module.ACTION.needs if need.startswith("iam:")}
    assert declared == granted
    paths = re.findall(r'path "([^"*]+?)/?\*?"', block("hcl"))
    for need in {need.removeprefix("vault:") for module in VAULT for need in module.ACTION.needs}:
        assert need in paths


@pytest.mark.parts
def test_vault_s_are_enough(bao, with_vault, vault, tmp_path):
    bao._call("PUT", "sys/policies/acl/clawback", {"policy": block("hcl")})
    token, _ = vault.token_create(policies=["default", "clawback"], ttl="1h", meta={}, orphan=True)
    (tmp_path / "token").write_text(token)
    least = VaultConnector(bao.address, tmp_path / "token")
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
