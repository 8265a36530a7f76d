"""npm's oidc-provider as a child process, for the conftests that load this file by its path."""

import json
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from clawback.connectors.oidc import OidcConnector
from clawback.connectors.oidc_issuer import Issuer
from clawback.services.process import Service, free_port

ROOT = Path(__file__).parents[2]
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
    port: int = field(default_factory=free_port)
    service: Service = None
    control: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    manager: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def url(self):
        """Where it listens; its issuer's URL may lead there by way of another."""
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.issuer = self.issuer or self.url
        self.service = Service(
            "oidc-provider",
            [shutil.which("node"), ROOT / "tests" / "oidc_provider" / "server.mjs", LIBRARY, str(self.port)],
            log=self.folder / "oidc-provider.log",
            environment={
                "CONTROL": self.control,
                "MANAGER_SECRET": self.manager,
                "HOME": str(self.folder),
                "ISSUER": self.issuer,
            },
            ready=lambda: self.ask("GET", "/.well-known/openid-configuration").status_code == 200,
            deadline=60,
        ).start()
        return self

    def ask(self, method, path, **request):
        with httpx.Client(trust_env=False, timeout=10) as client:
            return client.request(method, f"{self.url}{path}", **request)

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

    def stop(self):
        if self.service is not None:
            self.service.stop()


def absent():
    """Why there can be none here; empty if there can."""
    if shutil.which("node") is None:
        return "node is not installed"
    return "" if LIBRARY.is_dir() else "npm's oidc-provider is not installed: make oidc-provider"
