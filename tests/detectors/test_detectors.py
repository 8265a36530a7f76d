"""Each detector: a hit, what only looks like one, and the attempt that came to nothing."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import clawback.detectors
from clawback.detector import Detector
from clawback.model import (
    FileActivity,
    HttpActivity,
    KernelActivity,
    Level,
    Lifecycle,
    NetworkActivity,
    ProcessActivity,
    RouteActivity,
    Sensitivity,
)

NAMES = sorted(path.stem for path in Path(clawback.detectors.__path__[0]).glob("[a-z]*.py"))
MIB = 1024 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_each_file_declares_one_complete_detector(name: str) -> None:
    detector = import_module(f"clawback.detectors.{name}").DETECTOR
    assert isinstance(detector, Detector)
    assert all((detector.title, detector.doc, detector.reads, detector.technique, detector.asi))
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", item) for item in detector.attack)
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", item) for item in detector.atlas)
    assert all(re.fullmatch(r"ASI(0[1-9]|10)", item) for item in detector.asi)
    assert all(re.fullmatch(r"ASI-(0[1-9]|10)", item) for item in detector.seed_asi)
    assert detector.reflex in {None, Level.FREEZE, Level.ISOLATE}, "a reflex must be reversible"


def test_ids_are_unique() -> None:
    ids = [import_module(f"clawback.detectors.{name}").DETECTOR.id for name in NAMES]
    assert len(set(ids)) == len(ids)


class TestSecrets:
    def test_opening_a_decoy(self, event, run):
        [found] = run("secrets", [event(FileActivity, path="/root/.aws/credentials", access="canary")])
        assert found.resource == "/root/.aws/credentials"
        assert found.reflex is Level.ISOLATE
        assert found.attempts == (("open", "/root/.aws/credentials"),)

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/shadow",
            "/etc/../etc//shadow",
            "/root/.ssh/id_rsa",
            "/home/a/.aws/credentials",
            "/srv/.git-credentials",
            "/run/secrets/other",
            "/proc/1/environ",
        ],
    )
    def test_a_refused_credential_file(self, event, run, path):
        assert len(run("secrets", [event(FileActivity, path=path, blocked=True)])) == 1

    @pytest.mark.parametrize("path", ["/etc/passwd", "/srv/shadow", "/data/aws/credentials", "/etc/ssh/ssh_config"])
    def test_another_refused_file_is_none(self, event, run, path):
        assert run("secrets", [event(FileActivity, path=path, blocked=True)]) == []

    def test_a_file_that_the_policy_allows_is_the_agents_own(self, event, run):
        assert run("secrets", [event(FileActivity, path="/run/secrets/vault-token")]) == []

    def test_a_refused_vault_secret(self, event, run):
        path = "/v1/secret/data/payroll?version=2"
        call = event(HttpActivity, method="GET", host="vault", port=8200, path=path, status=403, blocked=True)
        [found] = run("secrets", [call])
        assert found.resource == "vault:8200/v1/secret/data/payroll"
        assert found.attempts == (("http", "GET http://vault:8200/v1/secret/data/payroll"),)

    @pytest.mark.parametrize("path", ["/v1/team/a/data/x", "/v1/secret%2Fdata/x/y", "/v1/database/creds/payroll"])
    def test_vault_under_other_mounts_and_spellings(self, event, run, path):
        call = event(HttpActivity, method="GET", host="vault", port=8200, path=path, blocked=True)
        assert len(run("secrets", [call])) == 1

    def test_a_vault_secret_that_the_policy_allows_and_vault_refuses_is_none(self, event, run):
        call = event(HttpActivity, method="GET", host="vault", port=8200, path="/v1/secret/data/support", status=403)
        assert run("secrets", [call]) == []

    def test_vaults_health_refused_is_none(self, event, run):
        call = event(HttpActivity, method="GET", host="vault", port=8200, path="/v1/sys/health", blocked=True)
        assert run("secrets", [call]) == []

    def test_the_metadata_service(self, event, run):
        call = event(NetworkActivity, host="169.254.169.254", port=80, blocked=True)
        assert [item.resource for item in run("secrets", [call])] == ["169.254.169.254:80"]


class TestViolationSpike:
    def test_the_21st_in_an_hour(self, event, run):
        calls = [event(KernelActivity, syscall="mount", blocked=True, after=170) for _ in range(21)]
        [found] = run("violation_spike", calls)
        assert len(found.events) == 21
        assert found.time_ns == calls[-1].time_ns

    def test_all_kinds_count_and_one_spike_is_one_finding(self, event, run):
        calls = [
            event(FileActivity, path="/x", blocked=True),
            event(HttpActivity, method="GET", host="h", port=80, path="/", blocked=True),
            event(NetworkActivity, host="h", port=80, blocked=True),
            event(KernelActivity, syscall="bpf", blocked=True),
        ] * 20
        assert len(run("violation_spike", calls)) == 1

    def test_twenty_in_an_hour_are_none_however_long_it_goes_on(self, event, run):
        calls = [event(KernelActivity, syscall="mount", blocked=True, after=180) for _ in range(200)]
        assert run("violation_spike", calls) == []

    def test_what_was_allowed_does_not_count(self, event, run):
        assert run("violation_spike", [event(FileActivity, path="/x", after=0.01) for _ in range(500)]) == []

    def test_a_wild_clock_does_not_hide_the_spike(self, event, run):
        calls = [event(KernelActivity, syscall="mount", blocked=True) for _ in range(21)]
        calls.insert(3, event(KernelActivity, syscall="mount", blocked=True, time_ns=2**62))
        calls.insert(9, event(KernelActivity, syscall="mount", blocked=True, time_ns=1))
        assert len(run("violation_spike", calls)) == 1

    def test_the_cores_own_count_is_of_former_instances_too_and_does_not_count(self, event, run):
        beat = {"component": "sandbox", "status": "alive", "activity_id": Lifecycle.OTHER}
        assert run("violation_spike", [event(Lifecycle, violations=500, **beat)]) == []


class TestNewDenial:
    HOURS = 3600.0

    def test_a_call_not_seen_in_the_first_72_hours(self, event, run):
        calls = [
            event(ProcessActivity, pid=1, activity_id=1),
            event(KernelActivity, syscall="ptrace", blocked=True),
            event(KernelActivity, syscall="ptrace", blocked=True, after=73 * self.HOURS),
            event(KernelActivity, syscall="bpf", blocked=True),
        ]
        assert [item.resource for item in run("new_denial", calls)] == ["bpf"]

    def test_what_the_core_calls_news_is(self, event, run):
        """It knows the agent's earlier instances; this one has only begun."""
        calls = [
            event(KernelActivity, syscall="ptrace", blocked=True),
            event(KernelActivity, syscall="bpf", blocked=True, novel=True),
            event(KernelActivity, syscall="mount", novel=True),
        ]
        assert [item.resource for item in run("new_denial", calls)] == ["bpf"]

    def test_within_the_72_hours_nothing_is_new(self, event, run):
        calls = [event(KernelActivity, syscall=f"call{n}", blocked=True, after=self.HOURS) for n in range(70)]
        assert run("new_denial", calls) == []

    def test_an_allowed_call_is_none(self, event, run):
        calls = [event(ProcessActivity, pid=1), event(KernelActivity, syscall="bpf", after=80 * self.HOURS)]
        assert run("new_denial", calls) == []


class TestEscapeAttempt:
    def test_a_call_that_only_an_escape_needs(self, event, run):
        [found] = run("escape_attempt", [event(KernelActivity, syscall="setns", blocked=True)])
        assert found.attempts == (("syscall", "setns"),)

    def test_what_ordinary_programs_try_is_none(self, event, run):
        calls = [event(KernelActivity, syscall=name, blocked=True) for name in ("unshare", "io_uring_setup", "ptrace")]
        assert run("escape_attempt", calls) == []

    def test_an_allowed_one_is_none(self, event, run):
        assert run("escape_attempt", [event(KernelActivity, syscall="setns")]) == []


def traffic(event, sent, received=0, host="sink.test", connection="c1", **more):
    return event(
        NetworkActivity,
        activity_id=NetworkActivity.TRAFFIC,
        host=host,
        port=443,
        connection=connection,
        bytes_out=sent,
        bytes_in=received,
        **more,
    )


class TestNewDestination:
    def test_an_upload_to_a_host_just_met(self, event, run):
        calls = [traffic(event, 64 * 1024 * n) for n in range(1, 8)]
        [found] = run("new_destination", calls)
        assert found.resource == "sink.test:443"
        assert found.time_ns == calls[3].time_ns, "at 256 KiB, not at the end"
        assert found.attempts == (("connect", "sink.test:443"),)

    def test_sliced_over_connections_and_spellings(self, event, run):
        calls = [traffic(event, 30_000, host=("Sink.test.", "sink.test")[n % 2], connection=f"c{n}") for n in range(10)]
        assert len(run("new_destination", calls)) == 1

    def test_by_http_requests(self, event, run):
        calls = [
            event(HttpActivity, method="POST", host="sink.test", port=80, path="/", bytes_out=100_000) for _ in range(3)
        ]
        assert len(run("new_destination", calls)) == 1

    def test_a_download_is_none(self, event, run):
        assert run("new_destination", [traffic(event, MIB, 50 * MIB)]) == []

    def test_a_conversation_is_none(self, event, run):
        calls = [traffic(event, 8_000 * n, 4_000 * n) for n in range(1, 200)]
        assert run("new_destination", calls) == []

    def test_a_little_under_the_volume_is_none(self, event, run):
        assert run("new_destination", [traffic(event, 256 * 1024 - 1)]) == []

    def test_totals_are_not_added_up_twice(self, event, run):
        assert run("new_destination", [traffic(event, 200_000) for _ in range(20)]) == []

    def test_a_host_used_for_longer_is_none(self, event, run):
        calls = [traffic(event, 1000), traffic(event, 5 * MIB, connection="c2", after=601)]
        assert run("new_destination", calls) == []

    def test_refused_connections_are_none(self, event, run):
        assert run("new_destination", [traffic(event, MIB, blocked=True)]) == []


class TestUnapprovedDestination:
    def refused(self, event, host="evil.test", **more):
        return event(NetworkActivity, activity_id=5, host=host, port=443, blocked=True, **more)

    def test_three_refusals_within_an_hour(self, event, run):
        [found] = run("unapproved_destination", [self.refused(event) for _ in range(5)])
        assert found.resource == "evil.test:443"
        assert found.reflex is None
        assert len(found.events) == 3

    def test_two_are_none(self, event, run):
        assert run("unapproved_destination", [self.refused(event), self.refused(event)]) == []

    def test_three_hosts_once_each_are_none(self, event, run):
        assert run("unapproved_destination", [self.refused(event, host=f"h{n}.test") for n in range(50)]) == []

    def test_three_in_three_hours_are_none(self, event, run):
        assert run("unapproved_destination", [self.refused(event, after=3601) for _ in range(9)]) == []

    def test_an_approved_one_is_none(self, event, run):
        assert run("unapproved_destination", [traffic(event, 10) for _ in range(9)]) == []


class TestSensitiveToCloud:
    def route(self, event, sensitivity, destination="cloud", **more):
        return event(
            RouteActivity,
            model="big",
            endpoint="https://cloud.test",
            destination=destination,
            sensitivity=sensitivity,
            data_types=("ssn",),
            **more,
        )

    @pytest.mark.parametrize("sensitivity", [Sensitivity.CONFIDENTIAL, Sensitivity.RESTRICTED])
    def test_any_occurrence(self, event, run, sensitivity):
        [found] = run("sensitive_to_cloud", [self.route(event, sensitivity, confidence=0.1)])
        assert found.resource == "big@https://cloud.test"

    def test_to_the_local_model_is_none(self, event, run):
        assert run("sensitive_to_cloud", [self.route(event, Sensitivity.RESTRICTED, "local")]) == []

    def test_internal_data_is_none(self, event, run):
        assert run("sensitive_to_cloud", [self.route(event, Sensitivity.INTERNAL)]) == []

    def test_a_refused_query_never_left(self, event, run):
        assert run("sensitive_to_cloud", [self.route(event, Sensitivity.RESTRICTED, blocked=True)]) == []


class TestSandboxDown:
    def ended(self, event, status, component="sandbox"):
        return event(Lifecycle, activity_id=Lifecycle.STOP, component=component, status=status)

    @pytest.mark.parametrize("status", ["lost", "crashed", "failed", "tampered"])
    def test_any_crash(self, event, run, status):
        assert len(run("sandbox_down", [self.ended(event, status)])) == 1

    @pytest.mark.parametrize("status", ["exited", "stopped", "alive"])
    def test_an_orderly_end_is_none(self, event, run, status):
        assert run("sandbox_down", [self.ended(event, status)]) == []

    def test_a_lost_shim(self, event, run):
        assert [item.resource for item in run("sandbox_down", [self.ended(event, "lost", "shim")])] == ["shim lost"]

    def test_another_component_is_none(self, event, run):
        assert run("sandbox_down", [self.ended(event, "lost", "gateway")]) == []
