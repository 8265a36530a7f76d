"""Killed between any two steps, a closure is gone on with by another process: nothing is left, nothing made twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clawback.connectors.aws import AwsConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.model import ReceiptState
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


@pytest.fixture
def rich_case(with_aws, bao, vault, ministack, cloud, open_case):
    """The agent has a token with an orphan, a key with a session that outlives it, and a second key that it made."""
    bench = with_aws()
    granted = bao.provision(bench.agent)
    bench.store.put(bench.agent, granted.ref, granted.token)
    rules = 'path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }'
    bao._call("PUT", f"sys/policies/acl/{bench.agent}", {"policy": rules})
    as_agent = vault._server.as_(granted.token).auth.token
    bench.orphan = as_agent.create_orphan(policies=[bench.agent])["auth"]["client_token"]
    admin, everything = ministack.client("iam"), {"Effect": "Allow", "Action": "iam:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    admin.put_user_policy(UserName=bench.agent, PolicyName="more", PolicyDocument=document)
    made = ministack.client("iam", credential=bench.grants.key).create_access_key(UserName=bench.agent)["AccessKey"]
    bench.second = json.dumps({"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]})
    bench.session = cloud.user_session_create(bench.grants.key)
    bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    return open_case(bench)


def run(case, file, until):
    """Start the process, and kill it once the journal shows that many settled receipts; whether it was killed."""
    script = Path(__file__).with_name("closing_process.py")
    child = subprocess.Popen([sys.executable, script, file], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while child.poll() is None:
        if len([x for x in case.receipts() if x.intended_ns]) >= until:
            os.kill(child.pid, signal.SIGKILL)
            child.wait(10)
            child.stderr.close()
            return True
        assert time.monotonic() < deadline
    said = child.stderr.read().decode()
    child.stderr.close()
    assert child.returncode == 0, said[-2000:]
    return False


def test_killed_again_and_again_it_ends_where_it_would_have_ended(rich_case, bao, ministack, cloud, vault, tmp_path):
    bench, agent = rich_case.bench, rich_case.bench.agent
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "vault": bao.address,
                "vault_token": str(bao.token_file),
                "audit_log": str(bao.audit_log),
                "aws": ministack.endpoint_url,
                "aws_credentials": str(ministack.credentials_file),
                "store": str(bench.store._folder),
                "journal": rich_case.journal._engine.url.render_as_string(hide_password=False),
                "incident": rich_case.id,
                "credentials": [
                    {"kind": x.kind, "name": x.name, "identifiers": dict(x.identifiers)}
                    for x in bench.store.refs(agent)
                ],
            }
        )
    )
    kills = 0
    for until in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 999):
        kills += run(rich_case, settings, until)
    assert kills >= 6
    for name in ("vault-token", "aws-key"):
        bench.store._remember(bench.store.current(agent, name))
    confirmed = next(x for x in rich_case.receipts("credential.confirm-closed"))
    assert_closed(rich_case, confirmed)

    assert not vault.token_works(bench.grants.key)[0]
    assert not vault.token_works(bench.orphan)[0]
    assert not [one for one in (bench.grants.key, bench.second) if cloud.works(one)[0]]
    assert not cloud.permitted(bench.session)[0]
    current = json.loads(bench.store.current(agent, "aws-key"))["access_key_id"]
    active = [key for key, status in cloud.access_keys(agent).items() if status == "Active"]
    assert active == [current], "one new key, and none whose value was lost"
    ours = vault.token_find({"clawback_agent": agent})
    assert len(ours) == 1, "one new token, and none whose value was lost"
    refused = [x.params["id"] for x in rich_case.receipts("credential.") if x.action.endswith(("refuse", "revoke"))]
    assert len(refused) == len(set(refused)), "each was closed once"
    assert all(x.state is ReceiptState.VERIFIED for x in rich_case.receipts())
