import pytest

from clawback.actions._credentials import seconds
from clawback.actions.credential_discard_old import ACTION as DISCARD
from clawback.actions.vault_revoke_leases import ACTION as REVOKE_LEASES
from clawback.actions.vault_rotate_token import ACTION as ROTATE
from clawback.errors import InvalidInput, Refused, Unreachable
from clawback.model import CredentialRef, Enforcement

pytestmark = pytest.mark.parts


def test_the_old_token_is_refused_and_the_new_one_does_what_it_did(with_vault, vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    accessor = bench.grants.ref.identifiers["accessor"]
    plan = step.plan()
    assert accessor in plan.changes[0]
    assert plan.changes[1].startswith("+ ")
    assert vault.token_works(bench.grants.token)[0], "planning touches nothing"

    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.FULL), proof.proof
    assert "permission denied" in proof.proof
    new = bench.store.current(bench.agent, "vault-token")
    assert vault.read_as(new, bench.grants.allowed)[0]
    assert not vault.read_as(new, bench.grants.outside)[0]
    assert not vault.read_as(bench.grants.token, bench.grants.allowed)[0]
    (ref,) = bench.store.refs(bench.agent)
    facts = vault.token_lookup(ref.identifiers["accessor"])
    assert set(facts["policies"]) == {"default", bench.agent}
    assert facts["creation_ttl"] == 3600
    assert facts["meta"]["agent"] == bench.agent, "the old token's own metadata is kept"


def test_what_the_agent_made_with_its_token_dies_with_it(with_vault, bao, vault):
    import hvac

    bench = with_vault()
    client = hvac.Client(bao.address, token=bench.grants.token)
    bao._call(
        "PUT", f"sys/policies/acl/{bench.agent}", {"policy": 'path "auth/token/create" { capabilities = ["update"] }'}
    )
    child = client.auth.token.create(ttl="1h")["auth"]["client_token"]
    assert vault.token_works(child)[0]
    assert bench.step(ROTATE, name="vault-token").run().verified
    assert not vault.token_works(child)[0]


def test_a_token_issued_through_a_role_is_replaced_through_it(with_vault, vault):
    bench = with_vault(role=True)
    assert bench.step(ROTATE, name="vault-token").run().enforcement is Enforcement.FULL
    (ref,) = bench.store.refs(bench.agent)
    facts = vault.token_lookup(ref.identifiers["accessor"])
    assert (facts["role"], facts["orphan"]) == (bench.agent, True)


def test_limits_of_the_old_token_are_limits_of_the_new(with_vault, vault):
    bench = with_vault()
    value, accessor = vault.token_create(
        policies=["default"], ttl="60s", meta={}, explicit_max_ttl="120s", num_uses=7, renewable=False, orphan=True
    )
    ref = CredentialRef(kind="vault-token", name="small", identifiers={"accessor": accessor})
    bench.store.put(bench.agent, ref, value)
    step = bench.step(ROTATE, name="small")
    step.capture()
    step.apply()
    facts = vault.token_lookup(step.outcome["accessor"])
    assert (facts["creation_ttl"], facts["explicit_max_ttl"], facts["num_uses"]) == (60, 120, 7)
    assert (facts["renewable"], facts["orphan"]) == (False, True)
    proof = step.verify()
    assert proof.verified
    assert proof.enforcement is Enforcement.PARTIAL, "it was not tried before, so as not to use one of seven uses up"


def test_a_token_that_is_dead_already_is_replaced_by_what_its_reference_says(with_vault, vault):
    bench = with_vault()
    vault.token_revoke(bench.grants.ref.identifiers["accessor"])
    proof = bench.step(ROTATE, name="vault-token").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "not seen to work before" in proof.proof
    assert vault.read_as(bench.store.current(bench.agent, "vault-token"), bench.grants.allowed)[0]


def test_applying_twice_is_applying_once(with_vault, vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.capture()
    first, second = step.apply(), step.apply()
    assert first == second
    assert step.verify().enforcement is Enforcement.FULL
    assert _live(vault, bench) == [first["accessor"]]


def test_crashed_between_any_two_calls_it_ends_with_one_new_token_and_no_other(with_vault, vault, crash_everywhere):
    def make():
        bench = with_vault()
        step = bench.step(ROTATE, name="vault-token")
        step.capture()
        attempt = step.apply
        attempts.append((bench, step))
        return attempt

    def check(_attempt):
        bench, step = attempts[-1]
        proof = step.verify()
        assert proof.enforcement is Enforcement.FULL, proof.proof
        assert _live(vault, bench) == [step.outcome["accessor"]]
        assert bench.store.staged(bench.agent, "vault-token") is None

    attempts = []
    assert crash_everywhere(make, check) > 10


def _live(vault, bench):
    return vault.token_find({"clawback_agent": bench.agent})


def test_a_proof_does_not_believe_a_token_that_lives(with_vault, vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.run()
    again, accessor = vault.token_create(policies=["default"], ttl="60s", meta={})
    # Somebody brought it back: the value that should be dead is one that is accepted.
    bench.store.put(bench.agent, bench.grants.ref, again)
    bench.store.stage(
        bench.agent, CredentialRef(kind="vault-token", name="vault-token", identifiers={"accessor": "x"}), again
    )
    bench.store.promote(bench.agent, "vault-token")
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (False, Enforcement.NONE)
    assert "ACCEPTED" in proof.proof
    vault.token_revoke(accessor)


def test_a_proof_needs_the_new_token_to_work(with_vault, vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.run()
    vault.token_revoke(step.outcome["accessor"])
    proof = step.verify()
    assert not proof.verified
    assert "new token used: REFUSED" in proof.proof


def test_without_the_old_value_a_proof_is_partial(with_vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.run()
    bench.step(DISCARD).run()
    assert bench.store.old(bench.agent, "vault-token") is None
    proof = step.verify()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "not used" in proof.proof


def test_old_values_are_kept_while_a_proof_is_outstanding(with_vault, make_receipt):
    bench = with_vault()
    bench.step(ROTATE, name="vault-token").run()
    bench.receipts = (
        make_receipt("vault.rotate-token", params={"agent": bench.agent, "name": "x"}, state="unverified"),
    )
    with pytest.raises(Refused, match="outstanding"):
        bench.step(DISCARD).run()
    assert bench.store.old(bench.agent, "vault-token") == bench.grants.token


def test_another_kind_of_credential_is_refused_by_name(with_vault):
    bench = with_vault()
    bench.store.put(bench.agent, CredentialRef(kind="vault-kv", name="kv", identifiers={}), "value-of-kv")
    with pytest.raises(InvalidInput, match="vault-kv"):
        bench.step(ROTATE, name="kv").plan()


def test_with_vault_silent_it_is_pending_and_completed_when_it_answers(with_vault, bao, silence):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.capture()
    with silence(bao.service), pytest.raises(Unreachable):
        step.apply()
    step.apply()
    assert step.verify().enforcement is Enforcement.FULL


@pytest.fixture(scope="module")
def pki(bao):
    bao._call("POST", "sys/mounts/pki", {"type": "pki"})
    bao._call("POST", "pki/root/generate/internal", {"common_name": "example.test", "ttl": "1h"})

    def issue(role, count):
        bao._call("POST", f"pki/roles/{role}", {"allow_any_name": True, "generate_lease": True, "ttl": "10m"})
        for number in range(count):
            bao._call("POST", f"pki/issue/{role}", {"common_name": f"{role}{number}"})

    return issue


def test_leases_under_a_prefix_are_gone_and_others_stay(with_vault, vault, pki):
    bench = with_vault()
    pki(bench.agent, 3)
    pki("somebody-else", 1)
    ref = CredentialRef(kind="vault-lease", name="cert", identifiers={"prefix": f"pki/issue/{bench.agent}"})
    bench.store.put(bench.agent, ref, "certificate")
    step = bench.step(REVOKE_LEASES, name="cert")
    assert len(step.plan().changes) == 3
    proof = step.run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL)
    assert "0 of 3 leases left" in proof.proof
    step.apply()
    assert vault.leases("pki/issue/somebody-else")
    pki(bench.agent, 1)
    assert not step.verify().verified


@pytest.mark.parametrize("params", [{}, {"name": "a", "prefix": "b/c"}, {"prefix": "database"}, {"prefix": "a/ b"}])
def test_a_lease_prefix_is_given_once_and_not_too_wide(params):
    with pytest.raises(ValueError):
        REVOKE_LEASES.params(agent="a", **params)


def test_what_is_issued_lives_for_an_hour_however_long_the_old_one_did(with_vault, vault):
    bench = with_vault(ttl="24h")
    step = bench.step(ROTATE, name="vault-token")
    assert "3600 s to live" in step.plan().changes[1]
    assert step.run().enforcement is Enforcement.FULL
    assert vault.token_lookup(step.outcome["accessor"])["creation_ttl"] == 3600


def test_a_periodic_token_is_replaced_by_one_of_a_shorter_period(with_vault, vault):
    bench = with_vault()
    value, accessor = vault.token_create(policies=["default"], ttl="", meta={}, period="48h", orphan=True)
    ref = CredentialRef(kind="vault-token", name="periodic", identifiers={"accessor": accessor})
    bench.store.put(bench.agent, ref, value)
    step = bench.step(ROTATE, name="periodic")
    assert step.run().enforcement is Enforcement.FULL
    assert vault.token_lookup(step.outcome["accessor"])["period"] == 3600


def test_a_role_that_insists_on_its_own_period_makes_it_partial(with_vault, vault, bao):
    bench = with_vault(role=True)
    role = {"allowed_policies": ["default", bench.agent], "orphan": True, "token_period": "48h"}
    bao._call("POST", f"auth/token/roles/{bench.agent}", role)
    proof = bench.step(ROTATE, name="vault-token").run()
    assert (proof.verified, proof.enforcement) == (True, Enforcement.PARTIAL), proof.proof
    assert "its role says so" in proof.proof


def test_undoing_gives_a_token_that_lives_as_long_as_the_old_one_did(with_vault, vault):
    bench = with_vault(ttl="24h")
    step = bench.step(ROTATE, name="vault-token")
    step.run()
    short = bench.store.current(bench.agent, "vault-token")
    assert not ROTATE.verify_reverted(bench.context(), step.params, step.captured).verified
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.PARTIAL), undone.proof
    (ref,) = bench.store.refs(bench.agent)
    facts = vault.token_lookup(ref.identifiers["accessor"])
    assert facts["creation_ttl"] == 86_400
    assert not vault.token_works(short)[0]
    assert not vault.token_works(bench.grants.token)[0]
    assert _live(vault, bench) == [ref.identifiers["accessor"]]
    assert step.revert().verified


def test_undoing_cut_off_anywhere_ends_in_the_same_place(with_vault, vault, crash_everywhere):
    steps = []

    def make():
        bench = with_vault()
        step = bench.step(ROTATE, name="vault-token")
        step.run()
        steps.append((bench, step))
        return step.revert

    def check(_attempt):
        bench, step = steps[-1]
        assert step.revert().verified
        assert len(_live(vault, bench)) == 1

    assert crash_everywhere(make, check) > 8


def test_cut_off_anywhere_and_undone_no_token_is_left_that_nobody_holds(with_vault, vault, undo_everywhere):
    def check(step, undone):
        assert undone.verified, undone.proof
        bench = step.bench
        (ref,) = bench.store.refs(bench.agent)
        assert set(_live(vault, bench)) <= {ref.identifiers["accessor"]}
        assert vault.token_works(bench.store.current(bench.agent, "vault-token"))[0]
        assert bench.store.staged(bench.agent, "vault-token") is None
        assert not bench.store.asked(bench.agent, "vault-token")

    assert undo_everywhere(lambda: with_vault().step(ROTATE, name="vault-token"), check) > 10


def test_undoing_what_never_began_leaves_the_old_token_in_force(with_vault, vault):
    bench = with_vault()
    step = bench.step(ROTATE, name="vault-token")
    step.capture()
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.FULL)
    assert vault.token_works(bench.grants.token)[0]
    assert _live(vault, bench) == []


@pytest.mark.parametrize(
    ("written", "number"),
    [("90", 90), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800), ("", 0), ("soon", 0), ("1h x", 0)],
)
def test_durations_are_read_as_vault_writes_them(written, number):
    assert seconds(written) == number
