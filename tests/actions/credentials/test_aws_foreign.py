"""Credentials that nobody issued to the agent: found, switched off, tried, switched on again."""

import json
from datetime import UTC, datetime

import pytest

from clawback.actions.aws_disable_foreign_credentials import ACTION as DISABLE
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.errors import NotEnforced, Unreachable
from clawback.model import CredentialRef, Enforcement
from clawback.world.cloud import UserCredential

pytestmark = pytest.mark.parts


def by_agent(ministack, bench, user):
    """A key of the user, made as the agent would: (id, credential)."""
    issued = ministack.client("iam").create_access_key(UserName=user)["AccessKey"]
    key = {"access_key_id": issued["AccessKeyId"], "secret_access_key": issued["SecretAccessKey"]}
    bench.store.values.add(issued["SecretAccessKey"])
    return issued["AccessKeyId"], json.dumps(key)


def test_a_key_that_no_inventory_knows_is_set_inactive_and_the_agent_s_own_is_not(with_aws, ministack, cloud):
    bench = with_aws()
    foreign, value = by_agent(ministack, bench, bench.agent)
    own = bench.grants.key_ref.identifiers["access_key_id"]
    step = bench.step(DISABLE)
    changes = step.plan().changes
    assert any(foreign in line for line in changes)
    assert not any(own in line for line in changes)
    assert cloud.works(value)[0], "planning touches nothing"
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), "nobody knows its value"
    assert "nobody here knows its value" in proof.proof
    assert cloud.access_keys(bench.agent) == {own: "Active", foreign: "Inactive"}
    assert not cloud.works(value)[0]
    step.apply()
    assert step.verify().verified
    assert step.revert().enforcement is Enforcement.FULL
    assert cloud.works(value)[0]
    assert step.revert().verified


def test_a_key_whose_value_is_held_is_used(with_aws, ministack, cloud):
    bench = with_aws()
    foreign, value = by_agent(ministack, bench, bench.agent)
    found = CredentialRef(kind="aws-access-key", name="found", identifiers={"user": bench.agent})
    bench.store.put(bench.agent, found, value)
    step = bench.step(DISABLE, foreign=[foreign])
    step.run()
    proof = step.verify()
    assert proof.verified
    assert f"{foreign} used: refused (sts:GetCallerIdentity: InvalidClientTokenId" in proof.proof
    missing = proof.details["missing"]
    assert missing == ["the core does not answer: what other agents hold is unknown"]


def test_what_was_rotated_in_the_incident_is_not_foreign(with_aws, cloud):
    bench = with_aws()
    assert bench.step(ROTATE_KEY, name="aws-key").run().verified
    bench.store.discard(bench.agent, "aws-key")
    before = cloud.access_keys(bench.agent)
    step = bench.step(DISABLE)
    assert step.plan().changes == ()
    assert step.run().verified
    assert cloud.access_keys(bench.agent) == before


def test_since_leaves_what_is_older(with_aws, ministack, cloud):
    bench = with_aws()
    foreign, value = by_agent(ministack, bench, bench.agent)
    later = datetime(2100, 1, 1, tzinfo=UTC).isoformat()
    assert bench.step(DISABLE, since=later).run().verified
    assert cloud.works(value)[0]
    bench.step(DISABLE, since="2020-01-01T00:00:00Z").run()
    assert cloud.access_keys(bench.agent)[foreign] == "Inactive"
    with pytest.raises(ValueError, match="time zone"):
        DISABLE.params(agent="a", since="2020-01-01T00:00:00")


def test_a_user_that_the_agent_made_is_looked_at_when_it_is_named(with_aws, ministack, cloud):
    bench, made = with_aws(), f"{with_aws().agent}-backdoor"
    ministack.client("iam").create_user(UserName=made)
    foreign, value = by_agent(ministack, bench, made)
    assert bench.step(DISABLE, users=[made]).run().verified
    assert cloud.access_keys(made) == {foreign: "Inactive"}
    assert not cloud.works(value)[0]


@pytest.mark.parametrize("kind", ["enabled again", "another one"])
def test_one_that_is_active_after_it_is_not_claimed(with_aws, ministack, cloud, kind):
    bench = with_aws()
    foreign, _ = by_agent(ministack, bench, bench.agent)
    step = bench.step(DISABLE)
    assert step.run().verified
    if kind == "enabled again":
        cloud.access_key_activate(bench.agent, foreign)
    else:
        cloud.access_key_delete(bench.agent, foreign)
        foreign, _ = by_agent(ministack, bench, bench.agent)
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert foreign in proof.proof
    again = bench.step(DISABLE, revision=1)
    assert again.action.key(again.params) != step.action.key(step.params)
    assert again.run().verified


def test_success_without_effect_is_not_claimed(with_aws, ministack):
    bench = with_aws()
    by_agent(ministack, bench, bench.agent)
    step = bench.step(DISABLE)

    class Idle:
        def __getattr__(self, name, inner=bench.cloud):
            return (lambda *args, **kwargs: None) if name == "user_credential_switch" else getattr(inner, name)

    bench.cloud = Idle()
    assert not step.run().verified


def test_cut_off_anywhere_it_ends_in_the_same_place(with_aws, ministack, cloud, crash_everywhere):
    steps = []

    def make():
        bench = with_aws()
        foreign, _ = by_agent(ministack, bench, bench.agent)
        step = bench.step(DISABLE)
        step.capture()
        steps.append((bench, step, foreign))
        return step.apply

    def check(_attempt):
        bench, step, foreign = steps[-1]
        assert step.verify().verified
        assert cloud.access_keys(bench.agent)[foreign] == "Inactive"
        assert step.revert().verified
        assert cloud.access_keys(bench.agent)[foreign] == "Active"

    assert crash_everywhere(make, check) > 1


def test_passwords_and_devices_are_named_and_left_for_a_person(with_aws, ministack):
    bench = with_aws()
    iam = ministack.client("iam")
    iam.create_login_profile(UserName=bench.agent, Password="Corr3ct-horse!battery")
    serial = iam.create_virtual_mfa_device(VirtualMFADeviceName=bench.agent)["VirtualMFADevice"]["SerialNumber"]
    iam.enable_mfa_device(
        UserName=bench.agent, SerialNumber=serial, AuthenticationCode1="123456", AuthenticationCode2="654321"
    )
    step = bench.step(DISABLE)
    assert sum("can only be deleted" in line for line in step.plan().checks) == 2
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert serial in proof.proof
    assert iam.get_login_profile(UserName=bench.agent)["LoginProfile"]
    assert step.revert().verified


def test_one_that_was_deleted_since_cannot_be_given_back_and_is_not_said_to_be(with_aws, ministack, cloud):
    bench = with_aws()
    foreign, _ = by_agent(ministack, bench, bench.agent)
    step = bench.step(DISABLE)
    step.run()
    cloud.access_key_delete(bench.agent, foreign)
    with pytest.raises(NotEnforced, match=foreign):
        step.revert()


def test_with_the_cloud_silent_after_it_nothing_is_claimed(with_aws, ministack, silence):
    bench = with_aws()
    by_agent(ministack, bench, bench.agent)
    step = bench.step(DISABLE)
    step.run()
    with silence(ministack.service), pytest.raises(Unreachable):
        step.verify()


def test_every_kind_that_iam_has_is_listed_and_switched_by_its_own_operation(cloud):
    """The operations that ministack does not have, against boto3's own model of IAM's requests and answers."""
    from botocore.stub import Stubber

    from clawback.connectors.aws import AwsConnector

    connector = AwsConnector(endpoint_url="http://127.0.0.1:1", credentials_file=cloud._credentials_file)
    then = datetime(2026, 1, 2, tzinfo=UTC)
    iam = connector.own("iam")
    with Stubber(iam) as stub:
        user = {"UserName": "u"}
        key = {"UserName": "u", "AccessKeyId": "AKIA" + "A" * 16, "Status": "Active", "CreateDate": then}
        stub.add_response("list_access_keys", {"AccessKeyMetadata": [key]}, user)
        service = {
            "UserName": "u", "Status": "Active", "ServiceUserName": "u-at-1", "CreateDate": then,
            "ServiceSpecificCredentialId": "ACCA" + "B" * 16, "ServiceName": "codecommit.amazonaws.com",
        }  # fmt: skip
        stub.add_response("list_service_specific_credentials", {"ServiceSpecificCredentials": [service]}, user)
        ssh = {"UserName": "u", "SSHPublicKeyId": "APKA" + "C" * 16, "Status": "Inactive", "UploadDate": then}
        stub.add_response("list_ssh_public_keys", {"SSHPublicKeys": [ssh]}, user)
        certificate = {
            "UserName": "u", "CertificateId": "D" * 24, "CertificateBody": "pem",
            "Status": "Active", "UploadDate": then,
        }  # fmt: skip
        stub.add_response("list_signing_certificates", {"Certificates": [certificate]}, user)
        stub.add_client_error("list_mfa_devices", "InvalidAction", http_status_code=400)
        stub.add_client_error("get_login_profile", "NoSuchEntity", http_status_code=404)
        found = {item.kind: item for item in connector.user_credentials("u")}
        assert set(found) == {"access-key", "service-credential", "ssh-key", "signing-certificate"}
        assert not found["ssh-key"].active
        assert found["signing-certificate"] == UserCredential(
            kind="signing-certificate", user="u", id="D" * 24, active=True, created=then.isoformat(), switchable=True
        )
        for kind, operation, parameter in (
            ("service-credential", "update_service_specific_credential", "ServiceSpecificCredentialId"),
            ("ssh-key", "update_ssh_public_key", "SSHPublicKeyId"),
            ("signing-certificate", "update_signing_certificate", "CertificateId"),
        ):
            wanted = {"UserName": "u", parameter: found[kind].id, "Status": "Inactive"}
            stub.add_response(operation, {}, wanted)
            connector.user_credential_switch("u", kind, found[kind].id, on=False)
            stub.add_client_error(operation, "NoSuchEntity", http_status_code=404)
            connector.user_credential_switch("u", kind, found[kind].id, on=False)
        stub.assert_no_pending_responses()
