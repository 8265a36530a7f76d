"""Where actions are made: the real parts, each behind a proxy that can lie, a journal, and an incident."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from lies.liar import Liar

from clawback.action import Action
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.notify import Channels
from clawback.connectors.postgres import PostgresLogins
from clawback.connectors.reviews import FileReviews
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.tickets import FileTickets
from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import CredentialRef, Finding, LaunchSpec, Level, Receipt, ReceiptState, Severity
from clawback.response import Response
from clawback.world import World

__all__ = ["Desk", "Host", "Identity", "Issuers", "Policies", "Scene", "until"]

_numbers = itertools.count(1)


def until(seen: Callable[[], Any], seconds: float = 20.0, what: str = "it") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.005)
    return found


class Absent:
    """A part that this scene has none of."""

    def __getattr__(self, name: str) -> Any:
        raise Unreachable("this scene has no such part")


class Scene:
    """An incident on an agent of its own. Lies are told by `liars`; the truth is looked up past them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = f"liar-{next(_numbers)}"
        self.instance = f"{self.agent}-a"
        self.liars: dict[str, Liar] = {}
        self.store = FileSecretStore(folder / "secrets")
        self.tickets = FileTickets(folder / "tickets")
        self.journal = Journal(f"sqlite:///{folder / 'journal.db'}")
        self.incident_id = ""
        self.closing: list[Callable[[], None]] = [self.journal.dispose]

    def world(self) -> World:
        absent: Any = Absent()
        return World(core=absent, policies=absent, secrets=self.store, tickets=self.tickets)

    def open(self, **changes: Any) -> None:
        finding = Finding(
            **{
                "detector": "secrets.outside-allow-list",
                "agent": self.agent,
                "instance": self.instance,
                "severity": Severity.CRITICAL,
                "technique": "T1552.001",
                "resource": "/root/.aws/credentials",
                "policy": self.agent,
                "policy_version": 1,
                "title": "Secret read outside the allow-list",
                "summary": "opened a decoy",
                "time_ns": time.time_ns(),
                "events": ("e1",),
                "reflex": Level.ISOLATE,
                "attempts": (("open", "/root/.aws/credentials"),),
                **changes,
            }
        )
        incident, _ = self.journal.open_or_join(finding, playbook="contain-rogue-agent")
        self.incident_id = incident.id

    def response(self, action: Action[Any] | None = None) -> Response:
        return Response(
            self.journal,
            self.world(),
            "tester",
            self.incident_id,
            actions={action.id: action} if action else None,
            without_evidence="lies are told here, and evidence is another's",
        )

    def step(self, action: Action[Any], **params: Any) -> Receipt:
        """Make one step, as the playbook would."""
        return self.response(action).execute(action, action.params(**params))

    def must(self, action: Action[Any], **params: Any) -> Receipt:
        receipt = self.step(action, **params)
        assert receipt.state is ReceiptState.VERIFIED, receipt
        return receipt

    def now(self, receipt: Receipt) -> Receipt:
        return next(one for one in self.journal.incident(self.incident_id).receipts if one.id == receipt.id)

    def honest(self) -> int:
        """End every lie; how many were told."""
        return sum(liar.stop() for liar in self.liars.values())

    def close(self) -> None:
        self.honest()
        for end in reversed(self.closing):
            end()


class Desk(Scene):
    """Nothing but the files of tickets and secrets, and on demand channels that carry messages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.notifier: Channels | None = None
        self.open()

    def world(self) -> World:
        return dataclasses.replace(super().world(), notifier_or_none=self.notifier)


class Identity(Scene):
    """A real OpenID Connect provider, which all scenes share: the agent holds a client, and a user's tokens."""

    def __init__(self, folder: Path, provider: Any, liar: Liar) -> None:
        super().__init__(folder)
        self.provider, self.liars["oidc"] = provider, liar
        self.oidc = provider.connector("rotate")
        registered = provider.register("rotate", client_name="steady")
        identifiers = {"issuer": provider.issuer, "client_id": registered["client_id"]}
        # The provider calls itself by what it was asked as, and it was registered at directly.
        self.uri = registered["registration_client_uri"].replace(provider.url, provider.issuer)
        self.managing = registered["registration_access_token"]
        self.client = json.dumps({key: registered[key] for key in ("client_id", "client_secret")})
        self.tokens = provider.control_(
            "grant", client_id=registered["client_id"], sub="joe", scope="openid offline_access"
        )
        self.backup = provider.control_("backup", client_id=registered["client_id"], **self.tokens)
        for kind, name, value in (("client", "client", self.client), ("token", "tokens", json.dumps(self.tokens))):
            self.store.put(self.agent, CredentialRef(kind=f"oidc-{kind}", name=name, identifiers=identifiers), value)
        ours = CredentialRef(kind="oidc-registration", name=self.agent, identifiers={**identifiers, "uri": self.uri})
        self.store.put("clawback", ours, self.managing)
        self.open()

    def world(self) -> World:
        absent: Any = Absent()
        return World(core=absent, policies=absent, secrets=self.store, tickets=self.tickets, oidc_or_none=self.oidc)

    def restore(self, *models: str) -> None:
        """These parts of the issuer's database are put back as they were when the scene began."""
        self.provider.control_("restore", kept=[row for row in self.backup["kept"] if row["model"] in models])


class Issuers(Scene):
    """OpenBao, ministack, and on demand a database whose logins OpenBao leases: the agent holds something of each."""

    def __init__(self, folder: Path, bao: Any, aws: Any, database: Callable[[], Any]) -> None:
        super().__init__(folder)
        self.bao, self.aws, self._database = bao, aws, database
        host, _, port = bao.address.removeprefix("http://").partition(":")
        self.liars["vault"] = Liar((host, int(port)))
        host, _, port = aws.endpoint_url.removeprefix("http://").partition(":")
        self.liars["aws"] = Liar((host, int(port)))
        self.closing += [liar.close for liar in self.liars.values()]
        self.vault = VaultConnector(self.liars["vault"].url, bao.token_file)
        self.cloud = AwsConnector(endpoint_url=self.liars["aws"].url, credentials_file=aws.credentials_file)
        self.true_vault = VaultConnector(bao.address, bao.token_file)
        self.true_cloud = AwsConnector(endpoint_url=aws.endpoint_url, credentials_file=aws.credentials_file)
        self.token = bao.provision(self.agent)
        self.grants = aws.provision(self.agent)
        self.store.put(self.agent, self.token.ref, self.token.token)
        self.store.put(self.agent, self.grants.key_ref, self.grants.key)
        self.store.put(self.agent, self.grants.session_ref, self.grants.session)
        self.open()

    def world(self) -> World:
        absent: Any = Absent()
        return World(
            core=absent,
            policies=absent,
            secrets=self.store,
            tickets=self.tickets,
            vault_or_none=self.vault,
            cloud_or_none=self.cloud,
            vault_records_or_none=VaultRecordsConnector(self.vault, audit_log=self.bao.audit_log),
            cloud_records_or_none=AwsRecordsConnector(self.cloud),
            databases_or_none=PostgresLogins(),
        )

    @cached_property
    def iam(self) -> Any:
        return self.aws.client("iam")

    def access_keys(self) -> dict[str, str]:
        listed = self.iam.list_access_keys(UserName=self.grants.user)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def old_key_id(self) -> str:
        return str(json.loads(self.grants.key)["access_key_id"])

    def key_works(self, credential: str) -> bool:
        return self.true_cloud.works(credential)[0]

    def session_works(self, credential: str) -> bool:
        return self.true_cloud.permitted(credential)[0]

    def token_works(self, token: str) -> bool:
        return self.true_vault.token_works(token)[0]

    def current(self, name: str) -> str:
        return self.store.current(self.agent, name)

    # -- a database whose logins are leased ----------------------------------------------------------------------------

    def lease(self) -> None:
        """Give the agent a leased login, `orders-db`."""
        database = self._database()
        mount = f"database-{self.agent}"
        self.bao._call("POST", f"sys/mounts/{mount}", {"type": "database"})
        self.bao._call("POST", f"{mount}/config/orders", database.config())
        create = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        role = {"db_name": "orders", "creation_statements": [create], "default_ttl": "1h", "max_ttl": "2h"}
        self.bao._call("POST", f"{mount}/roles/agent", role)
        self.path = f"{mount}/creds/agent"
        rules = f'path "{self.path}" {{ capabilities = ["read"] }}'
        self.bao._call("PUT", f"sys/policies/acl/{self.agent}", {"policy": rules})
        lease, value = self.true_vault.lease_issue(self.token.token, self.path)
        identifiers = {"prefix": self.path, "path": self.path, "lease": lease}
        self.login = value
        self.store.put(self.agent, CredentialRef(kind="vault-lease", name="orders-db", identifiers=identifiers), value)

    def login_works(self, value: str) -> bool:
        return bool(self._database().login(value))


class Policies(Scene):
    """A gateway's policy versions: the first known to be good, the second too wide."""

    GOOD = "networkPolicy:\n  name: p\n  egress:\n    allow:\n      - {domain: api.example.com, ports: [443]}\n"
    WIDE = "networkPolicy:\n  name: p\n  egress:\n    allow:\n      - {domain: '*.example.com', ports: [443]}\n"
    WIDER = "networkPolicy:\n  name: p\n  egress:\n    allow:\n      - {domain: '*.example.org', ports: [443]}\n"

    def __init__(self, folder: Path, gateway: Path) -> None:
        super().__init__(folder)
        self.true_policies = GatewayClient(gateway)
        self.store_folder = gateway.parents[1] / "policies" / self.agent
        at = folder / "gateway.sock"
        self.liars["gateway"] = Liar(gateway, at=at)
        self.closing.append(self.liars["gateway"].close)
        self.policies = GatewayClient(at, timeout=20.0)
        self.true_policies.put(self.agent, self.GOOD, author="reviewer", reason="reviewed", known_good=True)
        self.true_policies.put(self.agent, self.WIDE, author="somebody", reason="quick fix")
        self.open(policy_version=2)

    def world(self) -> World:
        absent: Any = Absent()
        return World(
            core=absent,
            policies=self.policies,
            secrets=self.store,
            tickets=self.tickets,
            reviews_or_none=FileReviews(self.folder / "reviews"),
        )


class Host(Scene):
    """A real core and gateway, and a real agent in its sandbox, which works and says so."""

    POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: lies}
spec:
  isolation: {network: restricted}
---
networkPolicy: {name: lies, egress: {allow: []}}
"""
    # It goes on whatever it is refused, as somebody who has his reasons would.
    AGENT = """\
import time
while True:
    try:
        with open("work/beat", "ab", 0) as beat:
            beat.write(b"x")
    except OSError:
        pass
    time.sleep(0.005)
"""

    def __init__(self, folder: Path, state: Path) -> None:
        super().__init__(folder)
        self.state = state
        run = state / "run"
        self.liars["core"] = Liar(run / "core.sock", at=folder / "core.sock")
        self.liars["gateway"] = Liar(run / "gateway.sock", at=folder / "gateway.sock")
        self.closing += [liar.close for liar in self.liars.values()]
        self.core = CoreClient(folder / "core.sock", timeout=30.0)
        self.policies = GatewayClient(folder / "gateway.sock", timeout=30.0)
        self.true_core, self.true_policies = CoreClient(run / "core.sock"), GatewayClient(run / "gateway.sock")
        home = folder / "home"
        (home / "work").mkdir(parents=True)
        (home / "work").chmod(0o777)
        (home / "agent.py").write_text(self.AGENT)
        self.beats = home / "work" / "beat"
        version = self.true_policies.put(self.agent, self.POLICY, author="reviewer", reason="reviewed", known_good=True)
        self.info = self.true_core.launch(
            LaunchSpec(
                agent=self.agent,
                command=("/usr/bin/python3", "agent.py"),
                policy=self.agent,
                policy_version=version.version,
                policy_text=self.POLICY,
                workdir=str(home),
                readable=(str(home),),
                writable=(str(home / "work"),),
            )
        )
        self.instance = self.info.instance
        self.closing.append(self.end)
        until(self.beats.exists, what="the agent's first beat")
        self.open()

    def world(self) -> World:
        return World(
            core=self.core,
            policies=self.policies,
            secrets=self.store,
            tickets=self.tickets,
            orders_or_none=self.policies,
        )

    @property
    def who(self) -> dict[str, Any]:
        return {"agent": self.agent, "instance": self.instance}

    def record(self) -> dict[str, Any]:
        instance = self.true_core.agent(self.agent).instance
        return dict(json.loads((self.state / "agents" / self.agent / instance / "agent.json").read_text()))

    def stands_still(self, seconds: float = 0.06) -> bool:
        """Whether the agent does nothing for ten times as long as it takes for anything; known as soon as it does."""
        before, over = self.beats.stat().st_size, time.monotonic() + seconds
        while self.beats.stat().st_size == before:
            if time.monotonic() > over:
                return True
            time.sleep(0.01)
        return False

    def enforced(self, level: Level) -> bool:
        """Past the liar: observed now, and ordered."""
        hold = self.true_core.agent(self.agent).hold
        return (
            hold is not None
            and level in hold.levels
            and self.true_core.probe(self.agent, level).enforcement.value == "full"
        )

    def let_go(self, *levels: Level) -> None:
        """As another operator would."""
        self.true_core.release(self.agent, levels=levels, reason="behind its back", by="another", incident="")

    def end(self) -> None:
        self.true_core.contain(self.agent, Level.STOP, reason="the test is over", by="test")
