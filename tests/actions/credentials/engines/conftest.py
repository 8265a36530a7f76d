"""What agents hold in a Vault's engines, made by the real server and used as agents use it."""

import base64
import json
import secrets

import pytest

from clawback.model import CredentialRef

TEXT = base64.b64encode(b"what the agent stole").decode()


@pytest.fixture(scope="session")
def approle(bao):
    """Makes roles and secret-ids, logs in with them, and reads with what that gives."""
    bao._call("POST", "sys/auth/approle", {"type": "approle"})

    class AppRole:
        def role(self, name, **options):
            self._role(
                "POST", name, {"token_ttl": "1h", "token_policies": ["default"], "secret_id_ttl": "24h", **options}
            )
            return self._role("GET", f"{name}/role-id")["data"]["role_id"]

        def secret_id(self, name, meta=None, **options):
            body = {"metadata": json.dumps(meta or {}), **options}
            data = self._role("POST", f"{name}/secret-id", body)["data"]
            return data["secret_id"], data["secret_id_accessor"]

        def login(self, role_id, secret_id):
            return bao._call("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id})["auth"]

        def _role(self, method, path, body=None):
            return bao._call(method, f"auth/approle/role/{path}", body)

    return AppRole()


@pytest.fixture
def with_secret_id(approle, make_bench):
    """A bench whose agent holds a secret-id, with which it has logged in once."""

    def make(role=None, secret_id=None, meta=None, login=True):
        bench = make_bench()
        bench.role_id = approle.role(bench.agent, **(role or {}))
        bench.old, bench.accessor = approle.secret_id(
            bench.agent, {"agent": bench.agent} if meta is None else meta, **(secret_id or {})
        )
        ref = CredentialRef(
            kind="vault-approle", name="approle", identifiers={"role": bench.agent, "accessor": bench.accessor}
        )
        bench.store.put(bench.agent, ref, bench.old)
        bench.login = approle.login(bench.role_id, bench.old) if login else None
        return bench

    return make


@pytest.fixture
def with_static_role(bao, database, make_bench):
    def make(**identifiers):
        bench = make_bench()
        mount, bench.user = identifiers.pop("mount", f"database-{bench.agent}"), f"user_{bench.agent}"
        with database.connect("admin", database.password) as connection:
            connection.execute(f"CREATE ROLE {bench.user} LOGIN PASSWORD '{secrets.token_hex(8)}'")
        bao._call("POST", f"sys/mounts/{mount}", {"type": "database"})
        bao._call(
            "POST",
            f"{mount}/config/orders",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": "*",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database.port}/postgres?sslmode=disable",
                "username": "admin",
                "password": database.password,
            },
        )
        role = {"db_name": "orders", "username": bench.user, "rotation_period": "24h"}
        bao._call("POST", f"{mount}/static-roles/agent", role)
        bench.place = {"host": "127.0.0.1", "port": str(database.port), "sslmode": "disable"}
        bench.mount = mount
        ref = CredentialRef(
            kind="vault-static-role",
            name="orders-db",
            identifiers={"mount": mount, "role": "agent", **bench.place, **identifiers},
        )
        user, password = bench.vault.static_roles.credential(mount, "agent")
        bench.store.put(bench.agent, ref, json.dumps({"username": user, "password": password, "schema": "orders"}))
        bench.old = password
        return bench

    return make


@pytest.fixture(scope="session")
def transit(bao):
    bao._call("POST", "sys/mounts/transit", {"type": "transit"})

    def call(method, path, body=None):
        return bao._call(method, f"transit/{path}", body).get("data", {})

    return call


@pytest.fixture
def with_key(transit, with_vault):
    """A bench whose agent may use a transit key, and something that it encrypted with it."""

    def make(**options):
        bench = with_vault()
        transit("POST", f"keys/{bench.agent}", options)
        ref = CredentialRef(kind="vault-transit", name="orders-key", identifiers={"key": bench.agent})
        bench.store.put(bench.agent, ref, f"transit/keys/{bench.agent}")
        bench.store.values.discard(f"transit/keys/{bench.agent}")  # a path, and no secret
        if not options:
            bench.stolen = transit("POST", f"encrypt/{bench.agent}", {"plaintext": TEXT})["ciphertext"]
        return bench

    return make
