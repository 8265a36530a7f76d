"""Tokens, secret-ids and logins that an agent had issued are found by Vault's records, and refused when used."""

import time

import pytest

from clawback.actions.credential_revoke import ACTION as REVOKE
from clawback.actions.credential_trace import ACTION as TRACE
from clawback.actions.vault_rotate_token import ACTION as ROTATE
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.model import CredentialRef, ReceiptState
from clawback.response import Responder

from .closing import assert_closed

pytestmark = [pytest.mark.parts, pytest.mark.slow]


@pytest.fixture
def vault_case(bao, vault, with_vault, open_case):
    """The agent's token may make tokens, orphans, and secret-ids of an AppRole; `audited=False`: no log to read."""

    def make(*, audited=True, more=""):
        bench = with_vault()
        agent = bench.agent
        rules = f"""
            path "auth/token/create"               {{ capabilities = ["update"] }}
            path "auth/token/create-orphan"        {{ capabilities = ["update", "sudo"] }}
            path "auth/token/create/{agent}-role"  {{ capabilities = ["update"] }}
            path "auth/approle/role/{agent}/*"     {{ capabilities = ["read", "update"] }}
            path "{bench.grants.allowed}"          {{ capabilities = ["read"] }}
            {more}
        """
        bao._call("PUT", f"sys/policies/acl/{agent}", {"policy": rules})
        bao._call("POST", f"auth/token/roles/{agent}-role", {"allowed_policies": [agent], "orphan": True})
        if "approle/" not in bao._call("GET", "sys/auth")["data"]:
            bao._call("POST", "sys/auth/approle", {"type": "approle"})
        bao._call("POST", f"auth/approle/role/{agent}", {"token_policies": [agent]})
        bench.address = bao.address
        bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log if audited else None)
        return open_case(bench)

    return make


def asking(case, token, path, body=None, *, method="POST"):
    """As the agent asks, with one of its tokens."""
    import httpx

    headers = {"X-Vault-Token": token} if token else {}
    with httpx.Client(trust_env=False, timeout=5) as client:
        answer = client.request(method, f"{case.bench.address}/v1/{path}", json=body, headers=headers)
    answer.raise_for_status()
    return answer.json()


def test_children_orphans_and_tokens_of_a_role_are_found_by_the_audit_log_and_refused(vault_case, vault):
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    child = asking(case, token, "auth/token/create", {"policies": [agent]})["auth"]
    orphan = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    through_role = asking(case, token, f"auth/token/create/{agent}-role", {"policies": [agent]})["auth"]
    # A child is revoked with its parent; what it made as an orphan is not, and its maker is then dead.
    grandchild = asking(case, child["client_token"], "auth/token/create-orphan", {"policies": [agent]})["auth"]
    vault.token_revoke(child["accessor"])
    made = {"orphan": orphan, "through a role": through_role, "orphan of a dead child": grandchild}
    assert all(vault.token_works(auth["client_token"])[0] for auth in made.values())

    assert_closed(case, case.close())
    refused = {name: vault.token_works(auth["client_token"]) for name, auth in made.items()}
    assert not [name for name, (accepted, _) in refused.items() if accepted]
    assert not vault.token_works(token)[0]
    assert vault.token_works(case.bench.store.current(agent, "vault-token"))[0], "the rightful user goes on"
    graph = case.graph()
    for auth in made.values():
        assert "the audit log has it issued at auth/token/create" in graph[f"vault-token/{auth['accessor']}"].said


def test_a_secret_id_and_the_login_with_it_are_closed(vault_case, vault):
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    role_id = asking(case, token, f"auth/approle/role/{agent}/role-id", method="GET")["data"]["role_id"]
    secret = asking(case, token, f"auth/approle/role/{agent}/secret-id")["data"]
    login = {"role_id": role_id, "secret_id": secret["secret_id"]}
    won = asking(case, "", "auth/approle/login", login)["auth"]
    assert vault.token_works(won["client_token"])[0]
    assert_closed(case, case.close())
    assert not vault.token_works(won["client_token"])[0]
    with pytest.raises(Exception, match="400"):
        asking(case, "", "auth/approle/login", login)
    assert f"approle-secret-id/auth/approle/role/{agent}/{secret['secret_id_accessor']}" in case.graph()


def test_without_an_audit_log_an_orphan_of_unknown_maker_is_named_left_alone_and_keeps_it_open(vault_case, vault, bao):
    case = vault_case(audited=False)
    agent, token = case.bench.agent, case.bench.grants.token
    orphan = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    named = bao._call("POST", "auth/token/create-orphan", {"policies": [agent], "meta": {"agent": agent}})["auth"]
    confirmed = case.close()
    assert confirmed.state is ReceiptState.UNVERIFIED
    assert f"OPEN: vault-token/{orphan['accessor']} unknown" in confirmed.proof
    assert "no Vault audit log is configured" in confirmed.proof
    assert vault.token_works(orphan["client_token"])[0], "it may be somebody else's"
    assert not vault.token_works(named["client_token"])[0], "its metadata names the agent"
    vault.token_revoke(orphan["accessor"])  # somebody looked
    assert_closed(case, case.close())


def test_a_log_that_is_configured_later_tells_whose_they_are(vault_case, vault, bao):
    case = vault_case(audited=False)
    agent, token = case.bench.agent, case.bench.grants.token
    theirs = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    others = bao._call("POST", "auth/token/create-orphan", {"policies": [agent]})["auth"]
    confirmed = case.close()
    assert confirmed.state is ReceiptState.UNVERIFIED
    assert confirmed.proof.count("OPEN: vault-token/") == 2
    case.bench.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    assert_closed(case, case.close())
    assert not vault.token_works(theirs["client_token"])[0]
    assert vault.token_works(others["client_token"])[0]


def test_a_token_revoked_as_traced_before_it_is_replaced_is_replaced_by_one_of_the_same_limits(vault_case, vault):
    """As where replacing it had to wait for another part, and the next turn found it alive."""
    case = vault_case()
    agent, respond = case.bench.agent, case.responder()
    value, accessor = vault.token_create(policies=[agent], ttl="60s", meta={"team": "blue"}, num_uses=7, orphan=True)
    few = CredentialRef(kind="vault-token", name="few", identifiers={"accessor": accessor})
    case.bench.store.put(agent, few, value)
    respond(TRACE, TRACE.params(agent=agent, turn=1))
    revoked = respond(REVOKE, REVOKE.params(agent=agent, kind="vault-token", id=accessor, turn=1))
    assert (revoked.state, vault.token_lookup(accessor)) == (ReceiptState.VERIFIED, None)
    replaced = respond(ROTATE, ROTATE.params(agent=agent, name="few"))
    assert replaced.state is ReceiptState.VERIFIED, replaced.proof
    assert "the old token was not seen to work before" in replaced.proof
    facts = vault.token_lookup(replaced.outcome["accessor"])
    assert (facts["policies"], facts["meta"]["team"], facts["orphan"]) == ([agent], "blue", True)
    assert 0 < facts["num_uses"] <= 7
    assert facts["creation_ttl"] <= 60


def test_an_orphan_made_during_the_response_is_closed_by_the_next_turn(vault_case, vault):
    """A helper holds an orphan of the agent's, and makes another just before it is revoked."""
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    first = asking(case, token, "auth/token/create-orphan", {"policies": [agent]})["auth"]
    made = []

    class Racing(Responder):
        def make(self, action, params, call):
            if action.id == "credential.revoke" and len(made) < 2:
                source = made[-1] if made else first
                anew = asking(case, source["client_token"], "auth/token/create-orphan", {"policies": [agent]})
                made.append(anew["auth"])
            return super().make(action, params, call)

    assert_closed(case, case.close(Racing(case.responder().response)))
    assert len(made) == 2
    assert not [auth for auth in (first, *made) if vault.token_works(auth["client_token"])[0]]
    turns = {receipt.params["turn"] for receipt in case.receipts("credential.revoke")}
    assert turns == {1, 2, 3}


def test_logins_with_a_secret_id_that_it_held_are_found_by_its_value(vault_case, vault, bao):
    case = vault_case()
    agent, role = case.bench.agent, f"{case.bench.agent}-held"
    bao._call("POST", f"auth/approle/role/{role}", {"token_policies": [agent]})
    secret = bao._call("POST", f"auth/approle/role/{role}/secret-id")["data"]
    role_id = bao._call("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
    identifiers = {"role": role, "accessor": secret["secret_id_accessor"]}
    ref = CredentialRef(kind="vault-approle", name="secret-id", identifiers=identifiers)
    case.bench.store.put(agent, ref, secret["secret_id"])
    case.bench.store.values.add(secret["secret_id"])
    login = {"role_id": role_id, "secret_id": secret["secret_id"]}
    won = asking(case, "", "auth/approle/login", login)["auth"]
    assert_closed(case, case.close())
    assert not vault.token_works(won["client_token"])[0]
    with pytest.raises(Exception, match="400"):
        asking(case, "", "auth/approle/login", login)
    found = case.graph()[f"vault-token/{won['accessor']}"]
    assert found.parents == (f"approle-secret-id/auth/approle/role/{role}/{secret['secret_id_accessor']}",)


def test_batch_tokens_end_with_their_parent_and_an_orphaned_one_keeps_it_open_until_its_time(vault_case, vault):
    case = vault_case()
    agent, token = case.bench.agent, case.bench.grants.token
    asked = {"policies": [agent], "type": "batch", "ttl": "12s"}
    child = asking(case, token, "auth/token/create", asked)["auth"]["client_token"]
    orphan = asking(case, token, "auth/token/create-orphan", asked)["auth"]["client_token"]
    path = case.bench.grants.allowed
    assert vault.read_as(child, path)[0]
    assert vault.read_as(orphan, path)[0]
    confirmed = case.close()
    assert not vault.read_as(child, path)[0], "it went with its parent"
    if vault.read_as(orphan, path)[0]:  # on a slow machine its time may be over already
        assert confirmed.state is ReceiptState.UNVERIFIED
        assert "an orphaned batch token, which nothing revokes: it ends 20" in confirmed.proof
    until = time.monotonic() + 30
    while vault.read_as(orphan, path)[0] or case.close().state is not ReceiptState.VERIFIED:
        assert time.monotonic() < until
    assert_closed(case, case.close())
