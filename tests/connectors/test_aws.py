import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clawback.connectors.aws import AwsConnector
from clawback.errors import InvalidInput, NotFound, Refused, Unreachable
from clawback.services.ministack import Ministack

pytestmark = pytest.mark.parts


def moment(cloud, seconds):
    return (cloud.server_time() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_what_was_provisioned_works_as_an_agent_would_use_it(ministack, cloud):
    grants = ministack.provision("worker")
    assert cloud.works(grants.key)[0]
    assert cloud.permitted(grants.session)[0]
    s3 = ministack.client("s3", credential=grants.session)
    assert b"order" in s3.get_object(Bucket=grants.bucket, Key="orders.csv")["Body"].read()


def test_the_administrator_s_key_is_in_its_file_alone(ministack):
    assert ministack.credentials_file.stat().st_mode & 0o777 == 0o600
    assert ministack.secret_access_key not in repr(ministack)
    assert ministack.secret_access_key not in (ministack.folder / "ministack.log").read_text()
    assert ministack.secret_access_key not in Path(f"/proc/{ministack.service.pid}/cmdline").read_text()


def test_a_key_lives_and_dies(ministack, cloud):
    grants = ministack.provision("keys")
    (first,) = cloud.access_keys("keys")
    second, secret = cloud.access_key_create("keys")
    value = json.dumps({"access_key_id": second, "secret_access_key": secret})
    assert cloud.works(value)[0]
    cloud.access_key_deactivate("keys", second)
    accepted, answer = cloud.works(value)
    assert not accepted
    assert "InvalidClientTokenId" in answer
    assert cloud.access_keys("keys") == {first: "Active", second: "Inactive"}
    cloud.access_key_activate("keys", second)
    assert cloud.works(value)[0]
    cloud.access_key_delete("keys", second)
    cloud.access_key_delete("keys", second)
    assert not cloud.works(value)[0]
    assert cloud.works(grants.key)[0]
    with pytest.raises(NotFound):
        cloud.access_key_activate("keys", second)


def test_a_session_outlives_its_key_until_older_sessions_are_refused(ministack, cloud):
    grants = ministack.provision("sessions")
    own = cloud.user_session_create(grants.key)
    (key,) = cloud.access_keys("sessions")
    cloud.access_key_deactivate("sessions", key)
    assert cloud.permitted(own)[0]
    assert cloud.permitted(grants.session)[0]
    cloud.user_refuse("sessions", before=moment(cloud, 1), name="clawback-test")
    cloud.sessions_refuse(grants.role, before=moment(cloud, 1), name="clawback-test")
    for session in (own, grants.session):
        accepted, answer = cloud.permitted(session)
        assert not accepted
        assert "explicit deny" in answer
    assert cloud.inline_policy("user/sessions", "clawback-test") is not None
    assert cloud.inline_policy(grants.role, "clawback-test") is not None
    cloud.user_allow("sessions", name="clawback-test")
    cloud.sessions_allow(grants.role, name="clawback-test")
    cloud.sessions_allow(grants.role, name="clawback-test")
    assert cloud.inline_policy(grants.role, "clawback-test") is None
    assert cloud.permitted(grants.session)[0]


def test_a_moment_in_the_past_refuses_no_newer_session(ministack, cloud):
    grants = ministack.provision("newer")
    cloud.sessions_refuse(grants.role, before=moment(cloud, -10), name="clawback-test")
    assert cloud.permitted(grants.session)[0]


def test_a_closed_trust_lets_nobody_become_the_role(ministack, cloud):
    grants = ministack.provision("trust")
    before = cloud.trust(grants.role)
    deny = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    cloud.trust_set(grants.role, {"Version": "2012-10-17", "Statement": [deny]})
    assert not cloud.assume(grants.key, grants.role, "probe")[0]
    with pytest.raises(Refused):
        cloud.session_create(grants.key, grants.role, "probe")
    cloud.trust_set(grants.role, before)
    assert cloud.assume(grants.key, grants.role, "probe")[0]


def test_the_server_s_clock_is_read_from_its_answers(cloud):
    assert abs(cloud.server_time() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "credential", ["", "x", "[]", "{}", '{"access_key_id": 1, "secret_access_key": "s3cr3t"}', '"s3cr3t"']
)
def test_a_credential_that_is_none_is_said_so_without_its_value(cloud, credential):
    with pytest.raises(InvalidInput) as error:
        cloud.works(credential)
    assert "s3cr3t" not in str(error.value) + error.value.hint


def test_a_missing_credentials_file_is_named(ministack, tmp_path):
    connector = AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=tmp_path / "absent.json")
    with pytest.raises(InvalidInput, match=r"absent\.json"):
        connector.access_keys("anybody")


def test_on_aws_itself_refusals_must_outlast_its_settling():
    assert AwsConnector().settle == 5.0
    assert AwsConnector(endpoint_url="http://127.0.0.1:1").settle == 0.0


def test_silent_and_stopped_are_unreachable_and_soon(tmp_path, silence):
    with Ministack(tmp_path / "ministack") as server:
        connector = AwsConnector(endpoint_url=server.endpoint_url, credentials_file=server.credentials_file)
        credential = server.credentials_file.read_text()
        assert connector.works(credential)[0]
        with silence(server.service):
            for ask in (lambda: connector.works(credential), connector.server_time):
                began = time.monotonic()
                with pytest.raises(Unreachable):
                    ask()
                assert time.monotonic() - began < 10  # the time-out is 1.8 s; this only tells it from none
        assert connector.works(credential)[0]
    with pytest.raises(Unreachable) as error:
        connector.access_keys("anybody")
    assert server.secret_access_key not in str(error.value) + error.value.hint


def test_preparing_contacts_nobody(tmp_path):
    connector = AwsConnector(endpoint_url="http://127.0.0.1:1", credentials_file=tmp_path / "absent.json")
    connector.prepare()


def test_one_connector_serves_many_threads(ministack):
    grants = ministack.provision("threads")
    connector = AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)

    def use(number):
        return (
            connector.works(grants.key)[0]
            and connector.access_keys("threads")
            and connector.permitted(grants.session)[0]
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(32)))


def test_side_by_side_each_use_is_by_the_credential_that_was_given(ministack, cloud):
    users = [f"beside-{number}" for number in range(6)]
    grants = {user: ministack.provision(user) for user in users}
    for user in users[::2]:
        (key,) = cloud.access_keys(user)
        cloud.access_key_deactivate(user, key)

    def used(user):
        return [(user, *cloud.works(grants[user].key)) for _ in range(10)]

    with ThreadPoolExecutor(6) as threads:
        answers = [answer for some in threads.map(used, users) for answer in some]
    for user, accepted, answer in answers:
        assert accepted is (user not in users[::2]), (user, answer)
        assert not accepted or answer.endswith(f"/{user}")


def test_outside_of_a_use_the_client_of_others_has_no_credential_of_ours(cloud, monkeypatch):
    from botocore.exceptions import NoCredentialsError

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    with cloud.acting("sts", {"access_key_id": "AKIANOBODY", "secret_access_key": "x"}) as client:
        pass
    with pytest.raises(NoCredentialsError):
        client.get_caller_identity()
