"""An AWS stand-in for rehearsals that really enforces IAM (ministack with AUTH=true), on loopback, state in memory.

For rehearsals only: besides the administrator made here, ministack takes the key id `test` for its root user. Nothing
that an agent can reach may lead to its port.
"""

from __future__ import annotations

import json
import os
import secrets
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from clawback.errors import ClawbackError
from clawback.services.process import Service, free_port

__all__ = ["Ministack"]

REGION = "us-east-1"


@dataclass(slots=True)
class Ministack:
    """One server. `folder` gets its log and `credentials.json` (0600, what `aws.credentials_file` names).

    with Ministack(folder) as aws:
        boto3.client("iam", endpoint_url=aws.endpoint_url, …)
    """

    folder: Path
    endpoint_url: str = ""
    region: str = REGION
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    _service: Service | None = field(default=None, repr=False)

    @property
    def credentials_file(self) -> Path:
        """Holds the administrator's key as JSON."""
        return self.folder / "credentials.json"

    @property
    def service(self) -> Service:
        """The child process."""
        if self._service is None:
            raise ClawbackError("ministack was not started")
        return self._service

    def start(self) -> Self:
        """Start it; about 0.4 s. `Unreachable` when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        program = Path(sysconfig.get_path("scripts")) / "ministack"
        if not program.exists():
            raise ClawbackError("ministack is not installed", hint="pip install 'clawback[demo]' brings it")
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self.access_key_id = f"AKIA{secrets.token_hex(8).upper()}"
        self.secret_access_key = secrets.token_urlsafe(30)
        self._write_credentials()
        self._service = Service(
            "ministack",
            [program],
            log=self.folder / "ministack.log",
            environment={
                "HOME": str(self.folder),
                "AUTH": "true",
                "BIND_HOST": "127.0.0.1",  # it binds every address unless told
                "GATEWAY_PORT": str(port),
                "SERVICES": "iam,sts,s3",
                "IOT_MTLS_ENABLED": "0",  # these two would listen on every address whatever BIND_HOST says
                "SFTP_ENABLED": "0",
                "LOG_LEVEL": "WARNING",
                "STATE_DIR": str(self.folder / "state"),
                "S3_DATA_DIR": str(self.folder / "s3"),
                "AWS_ACCESS_KEY_ID": self.access_key_id,
                "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            },
            workdir=self.folder,
            ready=self._answers,
            deadline=30,
        ).start()
        return self

    def stop(self) -> None:
        """Stop it; its state goes with it."""
        if self._service is not None:
            self._service.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        import httpx

        with httpx.Client(trust_env=False, timeout=1.0) as client:
            return client.get(f"{self.endpoint_url}/_ministack/health").status_code == 200

    def _write_credentials(self) -> None:
        handle = os.open(self.credentials_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}, file)
