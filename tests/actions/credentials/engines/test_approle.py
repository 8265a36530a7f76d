import pytest

from clawback.actions.vault_rotate_secret_id import ACTION as ROTATE
from clawback.errors import InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts


def _logs_in(vault, bench, secret_id):
    return vault.approle.logs_in("approle", bench.role_id, secret_id)[0]


def test_the_old_login_is_refused_its_tokens_are_dead_and_the_new_one_is_bounded(with_secret_id, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    plan = step.plan()
    assert bench.accessor in plan.changes[0]
    assert any(bench.login["accessor"] in line for line in plan.changes)
    assert vault.token_works(bench.login["client_token"])[0], "planning touches nothing"

    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "invalid role or secret ID" in proof.proof
    assert not _logs_in(vault, bench, bench.old)
    assert not vault.token_works(bench.login["client_token"])[0]
    new = bench.store.current(bench.agent, "approle")
    facts = vault.approle.facts_of("approle", bench.agent, new)
    assert (facts["ttl"], facts["uses"]) == (3600, 10), "the proof used the one login that it was given beside ten"
    assert facts["meta"]["agent"] == bench.agent
    assert "10 logins are left" in step.verify().proof
    assert vault.approle.facts_of("approle", bench.agent, new)["uses"] == 10, "proving again spends nothing"
    assert _logs_in(vault, bench, new)


def test_others_of_the_role_stay_unless_every_one_is_to_go(with_secret_id, approle, vault):
    bench = with_secret_id()
    theirs, other = approle.secret_id(bench.agent, {"agent": "somebody else"})
    login = approle.login(bench.role_id, theirs)
    assert bench.step(ROTATE, name="approle").run().verified
    assert _logs_in(vault, bench, theirs)
    assert vault.token_works(login["client_token"])[0]

    step = bench.step(ROTATE, name="approle", every=True)
    assert any(other in line for line in step.plan().changes)
    # What was issued first is a counted one: it is not tried before, so as not to spend a login.
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert not _logs_in(vault, bench, theirs)
    assert not vault.token_works(login["client_token"])[0]
    assert vault.approle.secret_ids("approle", bench.agent) == [step.outcome["accessor"]]


def test_without_metadata_all_tokens_of_the_role_go_and_the_plan_says_so(with_secret_id, approle, vault):
    bench = with_secret_id(meta={})
    theirs, _ = approle.secret_id(bench.agent, {"agent": "somebody else"})
    login = approle.login(bench.role_id, theirs)
    step = bench.step(ROTATE, name="approle")
    assert any("cannot be told" in line for line in step.plan().checks)
    assert step.run().verified
    assert not vault.token_works(login["client_token"])[0]
    assert _logs_in(vault, bench, theirs), "it may log in again: its secret-id was not the agent's"


def test_what_is_issued_has_no_more_than_the_old_one_had(with_secret_id, vault):
    bench = with_secret_id(role={"secret_id_num_uses": 3}, secret_id={"num_uses": 3, "ttl": "10m"}, login=False)
    step = bench.step(ROTATE, name="approle")
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "not used" in proof.proof, "the role leaves no room for a login of the proof's own"
    facts = vault.approle.facts_of("approle", bench.agent, bench.store.current(bench.agent, "approle"))
    assert (facts["ttl"], facts["uses"]) == (600, 3)


def test_batch_tokens_are_said_to_live_on(with_secret_id):
    bench = with_secret_id(role={"token_type": "batch"})
    step = bench.step(ROTATE, name="approle")
    assert any("batch" in line for line in step.plan().checks)
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "batch tokens" in proof.proof


def test_applying_twice_is_applying_once(with_secret_id, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.capture()
    assert step.apply() == step.apply()
    assert step.verify().enforcement is Enforcement.FULL
    assert vault.approle.secret_ids("approle", bench.agent) == [step.outcome["accessor"]]


def test_crashed_between_any_two_calls_it_ends_with_one_new_secret_id_and_no_other(
    with_secret_id, vault, crash_everywhere
):
    steps = []

    def make():
        bench = with_secret_id()
        step = bench.step(ROTATE, name="approle")
        step.capture()
        steps.append((bench, step))
        return step.apply

    def check(_attempt):
        bench, step = steps[-1]
        proof = step.verify()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        assert vault.approle.secret_ids("approle", bench.agent) == [step.outcome["accessor"]]
        assert bench.store.staged(bench.agent, "approle") is None

    assert crash_everywhere(make, check) > 15


def test_undoing_gives_one_with_the_old_bounds_and_leaves_no_other(with_secret_id, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.run()
    short = bench.store.current(bench.agent, "approle")
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL), undone.proof
    facts = vault.approle.facts_of("approle", bench.agent, bench.store.current(bench.agent, "approle"))
    assert (facts["ttl"], facts["uses"]) == (86_400, 0)
    assert not _logs_in(vault, bench, short)
    assert not _logs_in(vault, bench, bench.old)
    assert vault.approle.secret_ids("approle", bench.agent) == [facts["accessor"]]
    assert step.revert().verified


def test_undoing_cut_off_anywhere_ends_in_the_same_place(with_secret_id, vault, crash_everywhere):
    steps = []

    def make():
        bench = with_secret_id()
        step = bench.step(ROTATE, name="approle")
        step.run()
        steps.append((bench, step))
        return step.revert

    def check(_attempt):
        bench, step = steps[-1]
        assert step.revert().verified
        assert len(vault.approle.secret_ids("approle", bench.agent)) == 1

    assert crash_everywhere(make, check) > 8


def test_cut_off_anywhere_and_undone_no_secret_id_is_left_that_nobody_holds(with_secret_id, vault, undo_everywhere):
    def check(step, undone):
        assert undone.verified, undone.proof
        bench = step.bench
        (ref,) = bench.store.refs(bench.agent)
        assert vault.approle.secret_ids("approle", bench.agent) == [ref.identifiers["accessor"]]
        assert bench.store.staged(bench.agent, "approle") is None
        assert not bench.store.asked(bench.agent, "approle")

    assert undo_everywhere(lambda: with_secret_id().step(ROTATE, name="approle"), check) > 15


def test_undoing_what_never_began_leaves_the_old_one_in_force(with_secret_id, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.capture()
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL)
    assert vault.approle.secret_ids("approle", bench.agent) == [bench.accessor]
    assert _logs_in(vault, bench, bench.old)


def test_a_proof_does_not_believe_a_secret_id_that_logs_in(with_secret_id, approle, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.run()
    again, accessor = approle.secret_id(bench.agent)
    ref = bench.store.refs(bench.agent)[0]
    new = bench.store.current(bench.agent, "approle")
    bench.store.put(bench.agent, ref, again)  # what should be dead is one that is accepted
    bench.store.stage(bench.agent, ref, new)
    bench.store.promote(bench.agent, "approle")
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof
    vault.approle.destroy("approle", bench.agent, accessor)


def test_a_proof_does_not_believe_while_a_token_of_the_old_one_lives(with_secret_id, vault, bao, monkeypatch):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.capture()
    # The server answers 200 and revokes nothing: as if the call had no effect.
    with monkeypatch.context() as lying:
        lying.setattr(type(vault), "token_revoke", lambda *_: None)
        step.apply()
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "STILL LIVE" in proof.proof
    step.apply()
    assert step.verify().verified


def test_a_proof_needs_the_new_one_to_be_known(with_secret_id, vault):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.run()
    vault.approle.destroy("approle", bench.agent, step.outcome["accessor"])
    proof = step.verify()
    assert not proof.verified
    assert "REFUSED" in proof.proof


def test_with_vault_silent_it_is_pending_and_completed_when_it_answers(with_secret_id, bao, silence):
    bench = with_secret_id()
    step = bench.step(ROTATE, name="approle")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    with silence(bao.service), pytest.raises(Unreachable):
        step.verify()
    assert step.verify().enforcement is Enforcement.FULL


def test_a_reference_that_names_no_role_or_an_unknown_one_says_how_to_mend_it(with_secret_id):
    bench = with_secret_id()
    for identifiers, error in (({"role": "x"}, InvalidInput), ({"role": "nobody", "accessor": "x"}, NotFound)):
        bench.store.put(
            bench.agent, CredentialRef(kind="vault-approle", name="odd", identifiers=identifiers), "value-x"
        )
        with pytest.raises(error) as raised:
            bench.step(ROTATE, name="odd").plan()
        assert raised.value.hint
