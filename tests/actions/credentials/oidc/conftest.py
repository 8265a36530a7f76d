"""A real OpenID Connect provider, once for all tests here, and agents that hold its clients and tokens."""

import base64
import dataclasses
import json
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from clawback.connectors.oidc import OidcConnector
from clawback.connectors.oidc_issuer import Issuer
from clawback.model import CredentialRef
from clawback.services.process import Service, free_port

ROOT = Path(__file__).parents[4]
LIBRARY = ROOT / ".node" / "oidc-provider" / "node_modules" / "oidc-provider"
METADATA = {
    "redirect_uris": ["https://agent.test/callback"],
    "grant_types": ["client_credentials", "refresh_token", "authorization_code"],
    "response_types": ["code"],
}


@dataclass
class Provider:
    """`issuer`, and what a test may ask of the server besides its protocol."""

    folder: Path
    issuer: str = ""
    service: Service = None
    control: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    manager: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def start(self):
        port = free_port()
        self.issuer = f"http://127.0.0.1:{port}"
        self.service = Service(
            "oidc-provider",
            [shutil.which("node"), ROOT / "tests" / "oidc_provider" / "server.mjs", LIBRARY, str(port)],
            log=self.folder / "oidc-provider.log",
            environment={"CONTROL": self.control, "MANAGER_SECRET": self.manager, "HOME": str(self.folder)},
            ready=lambda: self.ask("GET", "/.well-known/openid-configuration").status_code == 200,
            deadline=60,
        ).start()
        return self

    def ask(self, method, path, **request):
        with httpx.Client(trust_env=False, timeout=10) as client:
            return client.request(method, f"{self.issuer}{path}", **request)

    def control_(self, what, **body):
        answer = self.ask("POST", f"/_test/{what}", json=body, headers={"authorization": f"Bearer {self.control}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def private(self, name, text):
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def connector(self, policy):
        """Ours; new clients are registered under that policy of the server's."""
        return OidcConnector(
            [
                Issuer(
                    self.issuer,
                    credentials_file=self.private(
                        "client.json", json.dumps({"client_id": "clawback", "client_secret": self.manager})
                    ),
                    initial_token_file=self.private(
                        f"{policy}.token", self.control_("initial", policy=policy)["token"]
                    ),
                )
            ]
        )

    def register(self, policy, **metadata):
        token = self.control_("initial", policy=policy)["token"]
        answer = self.ask("POST", "/reg", json=METADATA | metadata, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def credentials_token(self, client, **fields):
        """A token response by the client credentials grant."""
        raw = json.loads(client)
        form = {"grant_type": "client_credentials", **fields}
        answer = self.ask("POST", "/token", data=form, auth=(raw["client_id"], raw["client_secret"]))
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not LIBRARY.is_dir():
        pytest.skip("npm's oidc-provider is not installed: make oidc-provider")
    made = Provider(tmp_path_factory.mktemp("oidc"))
    try:
        yield made.start()
    finally:
        if made.service is not None:
            made.service.stop()


@pytest.fixture
def with_oidc(provider, make_bench):
    """A bench whose agent holds a client, and by it a user's tokens. `policy`: `rotate`, an update replaces the secret,
    or `keep`, it does not. `name` `steady`: the registration access token stays. `managed`: Clawback may manage it.
    """

    def make(policy="rotate", *, name="agent", managed=True, jwt=False):
        bench = make_bench()
        bench.oidc = provider.connector(policy)
        registered = provider.register(policy, client_name=name)
        identifiers = {"issuer": provider.issuer, "client_id": registered["client_id"]}
        bench.client = json.dumps({key: registered[key] for key in ("client_id", "client_secret")})
        bench.client_ref = CredentialRef(kind="oidc-client", name="client", identifiers=identifiers)
        bench.store.put(bench.agent, bench.client_ref, bench.client)
        bench.store.values.add(registered["client_secret"])
        tokens = provider.control_("grant", client_id=registered["client_id"], sub="joe", scope="openid offline_access")
        if jwt:
            won = json.loads(provider.credentials_token(bench.client, resource="urn:jwt", scope="read"))
            tokens["access_token"] = won["access_token"]
        bench.tokens = tokens
        bench.store.values |= set(tokens.values())
        bench.token_ref = CredentialRef(kind="oidc-token", name="tokens", identifiers=identifiers)
        bench.store.put(bench.agent, bench.token_ref, json.dumps(tokens))
        bench.registered = registered
        if managed:
            uri = registered["registration_client_uri"]
            ours = CredentialRef(kind="oidc-registration", name="reg", identifiers=identifiers | {"uri": uri})
            bench.store.put("clawback", ours, registered["registration_access_token"])
            bench.store.values.add(registered["registration_access_token"])
        bench.identifiers = identifiers
        return bench

    return make


@pytest.fixture
def with_token(with_oidc):
    """The same, with another value in the place of the tokens."""

    def make(value, **options):
        bench = with_oidc(**options)
        bench.store.put(bench.agent, bench.token_ref, value)
        return bench

    return make


@pytest.fixture
def holding():
    """What else a reference says."""

    def say(bench, **identifiers):
        ref = dataclasses.replace(bench.token_ref, identifiers=bench.identifiers | identifiers)
        bench.store.put(bench.agent, ref, bench.store.current(bench.agent, "tokens"))

    return say


def unsigned(payload):
    """A JWT in form."""
    parts = ({"alg": "RS256", "typ": "at+jwt"}, payload)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


@pytest.fixture
def make_jwt():
    return unsigned
