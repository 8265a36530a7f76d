"""Logins of a real PostgreSQL, issued by OpenBao: revoking a lease shuts the login out of the database itself."""

import json

import pytest

from clawback.actions.vault_issue_lease import ACTION as ISSUE_LEASE
from clawback.actions.vault_revoke_leases import ACTION as REVOKE_LEASES
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.model import CredentialRef

from .closing import assert_closed

pytestmark = [pytest.mark.parts, pytest.mark.slow]


@pytest.fixture
def leasing(bao, database, with_vault):
    """A bench whose agent holds, beside its token, a login of the database."""
    bench = with_vault()
    mount = f"database-{bench.agent}"
    bao._call("POST", f"sys/mounts/{mount}", {"type": "database"})
    bao._call(
        "POST",
        f"{mount}/config/orders",
        {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "agent",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database.port}/postgres?sslmode=disable",
            "username": "admin",
            "password": database.password,
        },
    )
    create = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
    bao._call(
        "POST",
        f"{mount}/roles/agent",
        {"db_name": "orders", "creation_statements": [create], "default_ttl": "1h", "max_ttl": "2h"},
    )
    path = f"{mount}/creds/agent"
    rules = f'path "{path}" {{ capabilities = ["read"] }}'
    bao._call("PUT", f"sys/policies/acl/{bench.agent}", {"policy": rules})
    lease, value = bench.vault.lease_issue(bench.grants.token, path)
    ref = CredentialRef(
        kind="vault-lease", name="orders-db", identifiers={"prefix": path, "path": path, "lease": lease}
    )
    bench.store.put(bench.agent, ref, value)
    bench.store.values.add(json.loads(value)["password"])
    return bench


def _login(database, value):
    credential = json.loads(value)
    return database.login(credential["username"], credential["password"])


def test_a_revoked_login_is_refused_by_the_database_and_a_new_one_accepted(leasing, database):
    old = leasing.store.current(leasing.agent, "orders-db")
    assert _login(database, old)[0]
    step = leasing.step(REVOKE_LEASES, name="orders-db")
    assert len(step.plan().changes) == 1
    assert step.run().verified
    accepted, said = _login(database, old)
    assert not accepted
    assert "authentication failed" in said

    anew = leasing.step(ISSUE_LEASE, name="orders-db")
    proof = anew.run()
    assert proof.verified, proof.proof
    assert "in force" in proof.proof
    new = leasing.store.current(leasing.agent, "orders-db")
    leasing.store.values.add(json.loads(new)["password"])
    assert _login(database, new)[0]
    assert anew.apply() == anew.outcome, "applying twice is applying once"
    leasing.vault.leases_revoke(anew.captured["path"])
    assert not anew.verify().verified


def test_the_login_dies_with_the_token_that_asked_for_it(leasing, database):
    old = leasing.store.current(leasing.agent, "orders-db")
    assert _login(database, old)[0]
    assert leasing.step(ROTATE_TOKEN, name="vault-token").run().verified
    assert not _login(database, old)[0]
    assert leasing.step(ISSUE_LEASE, name="orders-db").run().verified
    assert _login(database, leasing.store.current(leasing.agent, "orders-db"))[0]


def test_issuing_crashed_between_any_two_calls_ends_with_a_login_that_works(leasing, database, crash_everywhere):
    steps = []

    def make():
        steps.append(leasing.step(ISSUE_LEASE, name="orders-db"))
        steps[-1].capture()
        return steps[-1].apply

    def check(_attempt):
        assert steps[-1].verify().verified
        assert _login(database, leasing.store.current(leasing.agent, "orders-db"))[0]

    assert crash_everywhere(make, check) > 6


def test_a_login_that_an_orphan_of_the_agent_s_took_is_found_and_shut_out(leasing, database, bao, vault, open_case):
    """Nobody gave it to the agent, and the token that asked for it is no child of the agent's."""
    path = leasing.store.refs(leasing.agent)[0].identifiers["path"]
    rules = f"""path "{path}" {{ capabilities = ["read"] }}
                path "auth/token/create-orphan" {{ capabilities = ["update", "sudo"] }}"""
    bao._call("PUT", f"sys/policies/acl/{leasing.agent}", {"policy": rules})
    as_agent = vault._server.as_(leasing.grants.token)
    orphan = as_agent.auth.token.create_orphan(policies=[leasing.agent])["auth"]["client_token"]
    lease, taken = vault.lease_issue(orphan, path)
    given = leasing.store.current(leasing.agent, "orders-db")
    leasing.store.values.add(json.loads(taken)["password"])
    assert _login(database, given)[0]
    assert _login(database, taken)[0]

    leasing.vault_records = VaultRecordsConnector(vault, audit_log=bao.audit_log)
    case = open_case(leasing)
    assert_closed(case, case.close())
    for value in (given, taken):
        accepted, said = _login(database, value)
        assert not accepted
        assert "authentication failed" in said
    node = case.graph()[f"vault-lease/{lease}"]
    assert node.closed
    assert "the audit log has it issued" in node.said
