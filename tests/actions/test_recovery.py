"""Evidence, policy, relaunch, validation: each believes only what it reads back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawback.actions import agent_relaunch, evidence_collect, policy_restore, policy_validate
from clawback.enforcement.evidence.writer import Limits, Writer
from clawback.errors import NotFound, Refused
from clawback.model import AgentState, EgressOrder, Enforcement, Level, OrderKind, Scope, ScopeKind


def test_evidence_is_verified_by_hashing_it_again(drive: Any) -> None:
    seen = drive(evidence_collect.ACTION, agent="a", instance="i1").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("name", ["output.log", "manifest.json"])
def test_one_changed_byte_fails_the_evidence(drive: Any, name: str) -> None:
    step = drive(evidence_collect.ACTION, agent="a", instance="i1")
    step.run()
    _flip(Path(step.outcome["folder"]) / name)
    assert not step.verify().verified


def test_missing_added_and_linked_files_fail_the_evidence(drive: Any) -> None:
    step = drive(evidence_collect.ACTION, agent="a", instance="i1")
    step.run()
    folder = Path(step.outcome["folder"])
    (folder / "planted.txt").write_text("x")
    assert "not in the manifest" in step.verify().proof
    (folder / "planted.txt").unlink()
    (folder / "output.log").unlink()
    assert not step.verify().verified
    (folder / "output.log").symlink_to("/etc/hostname")
    assert "leads out" in step.verify().proof


def test_evidence_that_is_not_here_is_not_verified(drive: Any) -> None:
    step = drive(evidence_collect.ACTION, agent="a", instance="i1")
    step.run()
    step.outcome = {**step.outcome, "folder": "/nonexistent"}
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)


def test_evidence_of_a_replaced_instance_cannot_be_had(drive: Any) -> None:
    with pytest.raises(Refused):
        drive(evidence_collect.ACTION, agent="a", instance="gone").run()


def test_restore_makes_the_known_good_text_decide_and_revert_undoes_it(drive: Any, there: Any) -> None:
    step = drive(policy_restore.ACTION, policy="support", reason="incident")
    assert step.run().verified
    active = there.policies.active("support")
    assert active.version == 3
    assert active.sha256 == there.policies.versions("support")[0].sha256
    assert active.incident == "INC-1"
    step.run()
    assert there.policies.active("support").version == 3
    assert step.revert().verified
    assert there.policies.active("support").sha256 == there.policies.versions("support")[1].sha256


def test_a_restore_that_the_engine_did_not_take_up_is_unverified(drive: Any, there: Any) -> None:
    there.policies.stuck = True
    assert not drive(policy_restore.ACTION, policy="support", reason="incident").run().verified


def test_an_engine_whose_text_differs_from_its_hash_is_not_believed(drive: Any, there: Any) -> None:
    step = drive(policy_restore.ACTION, policy="support", reason="incident")
    step.run()
    version, _ = there.policies.texts["support"][2]
    there.policies.texts["support"][2] = (version, "allow: everything\n")
    assert not step.verify().verified


def test_without_a_known_good_version_nothing_is_restored(drive: Any, there: Any) -> None:
    there.policies.texts["support"] = there.policies.texts["support"][1:]
    with pytest.raises(NotFound):
        drive(policy_restore.ACTION, policy="support", reason="incident").run()
    with pytest.raises(NotFound):
        drive(policy_restore.ACTION, policy="support", version=99, reason="incident").run()


def test_relaunch_refuses_a_policy_that_nobody_marked_known_good(drive: Any) -> None:
    with pytest.raises(Refused):
        drive(agent_relaunch.ACTION, agent="a", instance="i1", reason="recover").run()


def test_relaunch_starts_once_and_is_seen(drive: Any, there: Any) -> None:
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    step = drive(agent_relaunch.ACTION, agent="a", instance="i1", reason="recover")
    assert step.run().verified
    assert step.run().verified
    assert there.core.calls.count("relaunch") == 1
    assert there.core.known["a"].policy_version == 3


def test_relaunch_under_a_hold_is_refused(drive: Any, there: Any) -> None:
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    there.core.contain("a", Level.FREEZE, reason="x", by="y")
    with pytest.raises(Refused):
        drive(agent_relaunch.ACTION, agent="a", reason="recover").run()


def _relaunched(drive: Any) -> Any:
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    return drive(agent_relaunch.ACTION, agent="a", instance="i1", reason="recover")


def test_weaker_layers_after_a_relaunch_are_not_accepted(drive: Any, there: Any) -> None:
    there.core.weaker_after_relaunch = True
    seen = _relaunched(drive).run()
    assert not seen.verified
    assert "layer network is partial, was full" in seen.proof


def test_a_relaunched_agent_with_the_old_credential_is_not_accepted(drive: Any, there: Any) -> None:
    step = _relaunched(drive)
    step.run()
    ref = there.secrets.refs("a")[0]
    there.secrets.put("a", replace(ref, identifiers={**ref.identifiers, "accessor": "acc-2"}), "hvs.next")
    seen = step.verify()
    assert not seen.verified
    assert "vault-token" in seen.proof


def test_a_relaunched_agent_that_died_is_not_accepted(drive: Any, there: Any) -> None:
    step = _relaunched(drive)
    step.run()
    there.core.known["a"] = replace(there.core.known["a"], state=AgentState.EXITED, exit_status=1)
    assert "exit status 1" in step.verify().proof


def test_validation_needs_every_rogue_call_denied(drive: Any, there: Any) -> None:
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert not seen.verified
    assert "NOT denied by support version 2: connect files.partner.test:443 (wide)" in seen.proof
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert "2 of 2 rogue calls denied and logged" in seen.proof
    there.core.open_calls.add(("connect", "files.partner.test:443"))
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)
    assert "NOT denied: connect files.partner.test:443" in seen.proof


def test_validation_replays_findings_that_joined_later(drive: Any, make_incident: Any, make_finding: Any) -> None:
    step = drive(policy_validate.ACTION, agent="a")
    step.run()
    later = make_finding(resource="x", attempts=(("syscall", "ptrace"),), time_ns=2_000_000_000)
    step.context = replace(step.context, incident=make_incident(findings=(make_finding(), later)))
    assert "3 of 3 rogue calls denied" in step.verify().proof


def test_validation_without_a_rogue_call_claims_no_more_than_the_sandbox_denies(
    drive: Any, there: Any, make_incident: Any, make_finding: Any
) -> None:
    on = make_incident(findings=(make_finding(attempts=()),))
    seen = drive(policy_validate.ACTION, on=on, agent="a").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "no rogue call is on record" in seen.proof
    there.core.open_calls.add(("connect", "clawback-check.invalid:443"))
    seen = drive(policy_validate.ACTION, on=on, agent="a").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)


def test_validation_says_what_it_left_out(drive: Any, make_incident: Any, make_finding: Any) -> None:
    on = make_incident(findings=(make_finding(attempts=tuple(("open", f"/{n}") for n in range(300))),))
    seen = drive(policy_validate.ACTION, on=on, agent="a").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)
    assert "44 further calls were not replayed" in seen.proof


def test_validation_inside_a_quarantine_is_refused(drive: Any, there: Any) -> None:
    there.core.contain("a", Level.ISOLATE, reason="x", by="y")
    with pytest.raises(Refused, match="would show the hold"):
        drive(policy_validate.ACTION, agent="a").run()


def test_validation_in_the_instance_that_was_to_be_replaced_is_refused(drive: Any) -> None:
    with pytest.raises(Refused):
        drive(policy_validate.ACTION, agent="a", replaced="i1").run()


def test_the_plan_of_a_validation_asks_the_engine(drive: Any) -> None:
    step = drive(policy_validate.ACTION, agent="a")
    checks = policy_validate.ACTION.plan(step.context, step.params).checks
    assert any("would ALLOW it (wide)" in check for check in checks)
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    checks = policy_validate.ACTION.plan(step.context, step.params).checks
    assert any("would deny it" in check for check in checks)


def test_a_bundle_as_the_core_writes_it_can_be_hashed_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "bundle", Limits())
    writer.text("output.log", "hello\n")
    writer.json("processes.json", [{"pid": 1}])
    manifest, digest, files = writer.finish({"agent": "a"})
    assert evidence_collect.differences(writer.folder, manifest, digest) == (files, [])
    _flip(writer.folder / "output.log")
    assert evidence_collect.differences(writer.folder, manifest, digest)[1] == ["'output.log' has changed"]


def test_a_call_that_an_order_denies_shows_nothing_of_the_policy(drive: Any, there: Any) -> None:
    there.orders.place(
        EgressOrder(
            id="x",
            kind=OrderKind.DESTINATION,
            scope=Scope(ScopeKind.AGENT, "a"),
            reason="r",
            by="b",
            host="files.partner.test",
        )
    )
    there.core.open_calls.add(("connect", "files.partner.test:443"))
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)  # the policy would let it through
    assert "NOT denied by support version 2: connect files.partner.test:443" in seen.proof
    there.policies.restore("support", 1, author="soc", reason="r")
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "1 of them by an order, which says nothing of the policy" in seen.proof
