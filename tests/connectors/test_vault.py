import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.errors import InvalidInput, Refused, Unreachable
from clawback.services.openbao import OpenBao

pytestmark = pytest.mark.parts


def call(bao, method, path, body=None):
    answer = httpx.request(
        method, f"{bao.address}/v1/{path}", json=body, headers={"X-Vault-Token": bao.root_token}, trust_env=False
    )
    answer.raise_for_status()
    return answer.json() if answer.content else {}


def test_the_root_token_is_in_its_file_and_nowhere_else(bao):
    assert bao.token_file.stat().st_mode & 0o777 == 0o600
    assert bao.token_file.read_text() == bao.root_token
    assert bao.root_token not in repr(bao)
    for path in bao.folder.rglob("*"):
        if path.is_file() and path != bao.token_file:
            assert bao.root_token not in path.read_text()
    for part in ("cmdline", "environ"):
        assert bao.root_token not in Path(f"/proc/{bao.service.pid}/{part}").read_text()
    assert '"type":"request"' in bao.audit_log.read_text()


def test_it_listens_on_loopback_alone(bao, ministack):
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    for service in (bao.service, ministack.service):
        addresses = [line.split()[3] for line in listening if f"pid={service.pid}," in line]
        assert addresses
        assert all(address.startswith("127.0.0.1:") for address in addresses), addresses


def test_a_token_is_found_by_its_tags_and_dies_by_its_accessor(vault):
    value, accessor = vault.token_create(policies=["default"], ttl="60s", meta={"step": "one", "agent": "a"})
    assert vault.token_works(value)[0]
    facts = vault.token_lookup(accessor)
    assert facts is not None
    assert (facts["policies"], facts["creation_ttl"], facts["meta"]["step"]) == (["default"], 60, "one")
    assert vault.token_find({"step": "one"}) == [accessor]
    assert vault.token_find({"step": "two"}) == []
    vault.token_revoke(accessor)
    vault.token_revoke(accessor)
    assert vault.token_lookup(accessor) is None
    accepted, answer = vault.token_works(value)
    assert not accepted
    assert "permission denied" in answer


def test_a_token_that_was_looked_up_is_known_and_its_death_is_seen_all_the_same(vault, monkeypatch):
    mine = [vault.token_create(policies=["default"], ttl="60s", meta={"walk": "w"})[1] for _ in range(3)]
    assert sorted(vault.token_find({"walk": "w"})) == sorted(mine)
    asked = []
    whole = vault.token_lookup
    monkeypatch.setattr(vault, "token_lookup", lambda accessor: asked.append(accessor) or whole(accessor))
    assert vault.token_find({"walk": "none"}) == []
    assert asked == [], "nobody is asked about what never changes"
    vault.token_revoke(mine[0])
    assert sorted(vault.token_find({"walk": "w"})) == sorted(mine[1:])
    assert sorted(asked) == sorted(mine[1:]), "those that match are looked at as they are"
    assert vault.token_made(mine[0])["meta"] == {"walk": "w"}
    assert vault.token_made("no-such-accessor") is None


def test_an_hmac_that_is_remembered_is_the_one_that_stands_in_the_audit_log(bao, vault):
    records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    _, accessor = vault.token_create(policies=["default"], ttl="60s", meta={})
    for _ in range(2):
        issued = {entry.token_hash for entry in records.audit().entries}
        assert records.audit_hash(accessor) in issued
        assert records.audit_hash(accessor + "x") not in issued


def test_a_token_that_may_do_nothing_is_still_told_from_a_dead_one(vault):
    value, accessor = vault.token_create(policies=["nothing"], ttl="60s", meta={})
    assert vault.token_works(value)[0]
    vault.token_revoke(accessor)
    assert not vault.token_works(value)[0]


def test_a_token_without_policies_is_not_issued_since_it_would_have_all_of_ours(vault):
    with pytest.raises(InvalidInput):
        vault.token_create(policies=[], ttl="60s", meta={})


def test_the_agent_reads_its_own_secret_and_not_the_other(bao, vault):
    grants = bao.provision("reader")
    assert vault.read_as(grants.token, grants.allowed)[0]
    accepted, answer = vault.read_as(grants.token, grants.outside)
    assert not accepted
    assert "permission denied" in answer


def test_leases_are_listed_at_every_depth_and_revoked_by_prefix(bao, vault):
    call(bao, "POST", "sys/mounts/pki", {"type": "pki"})
    call(bao, "POST", "pki/root/generate/internal", {"common_name": "example.test", "ttl": "1h"})
    for role in ("support", "other"):
        call(bao, "POST", f"pki/roles/{role}", {"allow_any_name": True, "generate_lease": True, "ttl": "10m"})
        for number in range(3):
            call(bao, "POST", f"pki/issue/{role}", {"common_name": f"{role}{number}"})
    assert len(vault.leases("pki/issue/support")) == 3
    assert len(vault.leases("pki")) == 6
    vault.leases_revoke("pki/issue/support")
    assert vault.leases("pki/issue/support") == []
    assert len(vault.leases("pki/issue/other")) == 3
    assert vault.leases("pki/issue/nobody") == []


def test_our_own_missing_rights_are_refused_and_not_taken_for_absence(bao, vault, tmp_path):
    weak, accessor = vault.token_create(policies=["nothing"], ttl="60s", meta={})
    (tmp_path / "token").write_text(weak)
    connector = VaultConnector(bao.address, tmp_path / "token")
    for ask in (
        lambda: connector.token_lookup(accessor),
        lambda: connector.token_revoke(accessor),
        lambda: connector.token_find({}),
        lambda: connector.leases("pki"),
    ):
        with pytest.raises(Refused) as error:
            ask()
        assert weak not in str(error.value) + error.value.hint
        assert error.value.__suppress_context__


def test_a_missing_or_empty_token_file_is_named(bao, tmp_path):
    with pytest.raises(InvalidInput, match="absent"):
        VaultConnector(bao.address, tmp_path / "absent").token_lookup("x")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidInput, match="empty"):
        VaultConnector(bao.address, tmp_path / "empty").token_lookup("x")


def test_sealed_silent_and_stopped_are_unreachable_and_soon(tmp_path, silence):
    with OpenBao(tmp_path / "openbao") as server:
        connector = VaultConnector(server.address, server.token_file)
        value, accessor = connector.token_create(policies=["default"], ttl="60s", meta={})
        server.seal()
        with pytest.raises(Unreachable, match="sealed"):
            connector.token_works(value)
        server.unseal()
        _until(lambda: connector.token_works(value)[0])
        with silence(server.service):
            for ask in (lambda: connector.token_lookup(accessor), lambda: connector.leases_revoke("pki")):
                began = time.monotonic()
                with pytest.raises(Unreachable):
                    ask()
                assert time.monotonic() - began < 10  # the time-out is 1.5 s; this only tells it from none
        assert connector.token_works(value)[0]
    with pytest.raises(Unreachable) as error:
        connector.token_works(value)
    assert value not in str(error.value) + error.value.hint


def test_preparing_contacts_nobody(tmp_path):
    VaultConnector("http://127.0.0.1:1", tmp_path / "absent").prepare()


def test_one_connector_serves_many_threads_each_with_its_own_token(bao):
    connector = VaultConnector(bao.address, bao.token_file)

    def use(number):
        value, accessor = connector.token_create(policies=["default"], ttl="60s", meta={"number": str(number)})
        facts = connector.token_lookup(accessor)
        assert facts is not None
        assert facts["meta"] == {"number": str(number)}
        assert connector.token_works(value)[0]
        connector.token_revoke(accessor)
        return not connector.token_works(value)[0]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(32)))


def _until(condition):
    deadline = time.monotonic() + 10
    while True:
        try:
            if condition():
                return
        except Unreachable:
            pass
        assert time.monotonic() < deadline
