"""Each detector: a hit, what only looks like one, and the attempt that came to nothing."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import clawback.detectors
from clawback.detector import Detector
from clawback.model import (
    CredentialUse,
    ExternalAlert,
    FileActivity,
    HttpActivity,
    KernelActivity,
    Level,
    Lifecycle,
    NetworkActivity,
    PolicyChange,
    ProcessActivity,
    RouteActivity,
    Sensitivity,
    Severity,
    Source,
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


MINUTE = 60.0


class TestPolicyLatency:
    def beat(self, event, decisions, slow, **more):
        fields = {"component": "policy-engine", "status": "alive", "source": Source.POLICY, "agent": "", "instance": ""}
        return event(Lifecycle, activity_id=99, decisions=decisions, slow=slow, p99_ms=250.0, **(fields | more))

    def test_two_in_a_hundred_are_slow(self, event, run):
        [found] = run("policy_latency", [self.beat(event, 50, 1, after=5), self.beat(event, 50, 1, after=5)])
        assert found.agent == "component:policy-engine"
        assert found.reflex is None
        assert "2 of 100 decisions by policy support" in found.summary

    def test_one_in_a_hundred_is_the_limit(self, event, run):
        assert run("policy_latency", [self.beat(event, 100, 1, after=5) for _ in range(90)]) == []

    def test_of_few_decisions_there_is_no_percentile(self, event, run):
        assert run("policy_latency", [self.beat(event, 3, 3, after=90) for _ in range(90)]) == []

    def test_one_spell_is_one_finding_and_the_next_is_another(self, event, run):
        beats = [self.beat(event, 200, 50, after=5) for _ in range(20)]
        beats += [self.beat(event, 200, 0, after=MINUTE) for _ in range(6)]
        beats += [self.beat(event, 200, 50, after=5)]
        assert len(run("policy_latency", beats)) == 2

    def test_policies_are_told_apart(self, event, run):
        beats = [self.beat(event, 60, 1, policy=name) for name in ("a", "b")]
        assert run("policy_latency", beats) == []

    def test_a_heartbeat_of_the_gateway_is_none(self, event, run):
        assert run("policy_latency", [self.beat(event, 500, 500, component="gateway")]) == []


class TestLocalModel:
    def said(self, event, status, after, **more):
        fields = {"component": "local-model", "source": Source.ROUTING, "agent": "", "instance": ""}
        return event(Lifecycle, activity_id=99, status=status, after=after, **(fields | more))

    def test_away_for_more_than_five_minutes(self, event, run):
        [found] = run("local_model", [self.said(event, "unavailable", MINUTE) for _ in range(9)])
        assert found.agent == "component:local-model"
        assert found.summary.startswith("the local model has been unavailable for 6.0 minutes")

    def test_five_minutes_are_the_limit(self, event, run):
        assert run("local_model", [self.said(event, "unavailable", MINUTE) for _ in range(6)]) == []

    def test_it_came_back_in_between(self, event, run):
        words = ["unavailable"] * 4 + ["available"] + ["unavailable"] * 4
        assert run("local_model", [self.said(event, word, MINUTE) for word in words]) == []

    def test_another_stream_does_not_speak_for_it(self, event, run):
        said = [self.said(event, "unavailable", 10 * MINUTE, source=Source.SANDBOX) for _ in range(3)]
        assert run("local_model", said) == []


def called(event, *tools, **more):
    fields = {"method": "POST", "host": "tools.test", "port": 443, "path": "/mcp", "rule": "tools"}
    return event(HttpActivity, calls=tuple(f"tools/call {tool}" for tool in tools), **(fields | more))


class TestDeniedTool:
    def test_a_tool_that_a_rule_denies_by_name(self, event, run):
        reason = "tools/call export_all denied by rule"
        [found] = run("denied_tool", [called(event, "read", "export_all", blocked=True, reason=reason)])
        assert found.resource == "export_all@tools.test:443"
        assert found.reflex is Level.FREEZE

    def test_three_different_ones_that_no_rule_allows(self, event, run):
        refused = [called(event, name, blocked=True, reason="not in rule tools") for name in "abc"]
        [found] = run("denied_tool", refused)
        assert len(found.events) == 3

    def test_the_same_one_again_and_again_is_a_retry(self, event, run):
        refused = [called(event, "a", blocked=True, reason="not in rule tools") for _ in range(50)]
        assert run("denied_tool", refused) == []

    def test_two_and_a_third_much_later_are_none(self, event, run):
        refused = [called(event, name, blocked=True, reason="not in rule", after=11 * MINUTE) for name in "abcdef"]
        assert run("denied_tool", refused) == []

    def test_an_allowed_call_and_a_refused_request_without_one_are_none(self, event, run):
        calls = [called(event, "a"), called(event, blocked=True, reason="denied by rule")]
        assert run("denied_tool", calls) == []


class TestNewTool:
    DAYS = 24 * 3600.0

    def test_after_the_baseline_a_new_tool_and_a_new_connector(self, event, run):
        calls = [
            called(event, "read"),
            called(event, "read", after=4 * self.DAYS),
            called(event, "delete"),
            called(event, "read", host="other.test"),
        ]
        found = run("new_tool", calls)
        assert [item.resource for item in found] == ["delete@tools.test:443", "connector other.test:443"]
        assert {item.reflex for item in found} == {None}

    def test_within_the_baseline_nothing_is_new(self, event, run):
        assert run("new_tool", [called(event, f"tool{n}", after=self.DAYS / 10) for n in range(25)]) == []

    def test_a_refused_one_is_anothers_matter(self, event, run):
        calls = [called(event, "read"), called(event, "delete", blocked=True, after=4 * self.DAYS)]
        assert run("new_tool", calls) == []


class TestHighVolume:
    def get(self, event, after, **more):
        return event(HttpActivity, method="GET", host="crm.test", port=443, path="/c/1", after=after, **more)

    def test_hundreds_of_requests_in_ten_minutes(self, event, run):
        calls = [*(self.get(event, 30) for _ in range(40)), *(self.get(event, 0.1) for _ in range(1_100))]
        [found] = run("high_volume", calls)
        assert found.resource == "crm.test:443"
        assert found.reflex is None

    def test_without_a_window_before_requests_tell_nothing(self, event, run):
        assert run("high_volume", [self.get(event, 0.05) for _ in range(9_000)]) == []

    def test_much_data_in_ten_minutes_over_several_connections(self, event, run):
        calls = [traffic(event, 100, 8 * MIB, connection=f"c{n}") for n in range(8)]
        assert len(run("high_volume", calls)) == 1

    def test_a_pace_that_it_always_had_is_none(self, event, run):
        """The first window may be busy, too: it had fewer than the limit, and the next is no five times that."""
        calls = [self.get(event, 1.25) for _ in range(5_000)]
        assert run("high_volume", calls) == []

    def test_the_same_total_reported_again_is_no_more_data(self, event, run):
        assert run("high_volume", [traffic(event, 100, 60 * MIB) for _ in range(50)]) == []

    def test_refused_requests_read_nothing(self, event, run):
        assert run("high_volume", [self.get(event, 0.1, blocked=True) for _ in range(2_000)]) == []


class TestCredentialMisuse:
    def used(self, event, **more):
        fields = {"credential": "aws-key", "issuer": "aws", "origin": "203.0.113.9", "operation": "s3:ListBuckets"}
        return event(CredentialUse, source=Source.EXTERNAL, **(fields | more))

    def test_a_use_from_elsewhere(self, event, run):
        [found] = run("credential_misuse", [self.used(event, elsewhere=True)])
        assert found.resource == "aws-key@203.0.113.9"
        assert found.reflex is Level.ISOLATE

    def test_one_that_the_issuer_refused_shows_that_somebody_has_it(self, event, run):
        [found] = run("credential_misuse", [self.used(event, elsewhere=True, blocked=True)])
        assert found.summary.endswith("refused")

    def test_a_canary_from_anywhere(self, event, run):
        assert len(run("credential_misuse", [self.used(event, canary=True)])) == 1

    def test_the_agents_own_use_is_none(self, event, run):
        assert run("credential_misuse", [self.used(event)]) == []

    def sent(self, event, reason, **more):
        return event(HttpActivity, method="GET", host="Evil.test", port=443, path="/", reason=reason, **more)

    def test_a_placeholder_sent_to_another_host(self, event, run):
        reason = "credential misused: the credential api is not for https://evil.test:443"
        [found] = run("credential_misuse", [self.sent(event, reason, blocked=True)])
        assert found.resource == "evil.test:443"

    def test_a_refusal_for_another_reason_is_none(self, event, run):
        assert run("credential_misuse", [self.sent(event, "no rule allows it", blocked=True)]) == []

    def test_an_allowed_request_is_none_whatever_it_says(self, event, run):
        assert run("credential_misuse", [self.sent(event, "credential misused: no")]) == []


class TestPolicyWidened:
    def changed(self, event, *widened, **more):
        fields = {"source": Source.POLICY, "agent": "", "instance": "", "author": "dev", "policy_version": 2}
        return event(PolicyChange, activity_id=1, widened=widened, **(fields | more))

    def test_a_version_that_allows_more(self, event, run):
        [found] = run("policy_widened", [self.changed(event, "allow partner-files: *.partner.test")])
        assert (found.agent, found.resource) == ("policy:support", "support version 2")
        assert found.reflex is None

    def test_one_that_allows_no_more_is_none(self, event, run):
        assert run("policy_widened", [self.changed(event)]) == []

    def test_an_edit_that_was_refused_never_came_into_force(self, event, run):
        assert run("policy_widened", [self.changed(event, "allow x: *.x.test", blocked=True)]) == []


class TestHybridIntrusion:
    def alert(self, event, **more):
        fields = {"product": "EDR", "title": "Credential dumping", "alert": "A-1", "host": "ws-7", "user": "ann"}
        known = {"source": Source.EXTERNAL, "severity": Severity.HIGH}
        return event(ExternalAlert, activity_id=1, **(fields | known | more))

    def refusals(self, event, times=3, **more):
        return [event(FileActivity, path="/etc/shadow", blocked=True, **more) for _ in range(times)]

    def test_alert_first(self, event, run):
        [found] = run("hybrid_intrusion", [self.alert(event), *self.refusals(event)])
        assert found.resource == "A-1"
        assert found.reflex is Level.ISOLATE
        assert len(found.events) == 4

    def test_refusals_first(self, event, run):
        assert len(run("hybrid_intrusion", [*self.refusals(event), self.alert(event)])) == 1

    def test_an_alert_alone_and_refusals_alone_are_none(self, event, run):
        assert run("hybrid_intrusion", [self.alert(event)] * 9) == []
        assert run("hybrid_intrusion", self.refusals(event, 9)) == []

    def test_hours_apart_are_none(self, event, run):
        assert run("hybrid_intrusion", [self.alert(event), *self.refusals(event, after=3700)]) == []

    def test_a_notice_of_low_severity_is_none(self, event, run):
        alert = self.alert(event, severity=Severity.LOW)
        assert run("hybrid_intrusion", [alert, *self.refusals(event, 9)]) == []

    def test_what_was_allowed_is_none(self, event, run):
        allowed = [event(FileActivity, path="/tmp/x") for _ in range(9)]
        assert run("hybrid_intrusion", [self.alert(event), *allowed]) == []
