"""An AWS stand-in for rehearsals that really enforces IAM (ministack with AUTH=true), on loopback, state in memory.

For rehearsals only. Besides the administrator made here, ministack takes the key id `test`, and any of twelve digits,
for its root user, whatever the signature: whoever reaches its port owns it. What it enforces, it enforces on those who
use the credentials that they were given.
"""

from __future__ import annotations

import json
import os
import secrets
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clawback.errors import ClawbackError
from clawback.model import CredentialRef
from clawback.services.process import Service, free_port

__all__ = ["AwsGrants", "Ministack"]

REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsGrants:
    """What `provision` gave an agent: a user with a key, a role it may become, a session of it, a bucket to read.

    The values are JSON: `access_key_id`, `secret_access_key`, and for the session `session_token`.
    """

    user: str
    role: str  # ARN
    bucket: str
    key_ref: CredentialRef
    key: str = field(repr=False)
    session_ref: CredentialRef
    session: str = field(repr=False)


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
    _session: Any = field(default=None, repr=False)

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
                "SERVICES": "cloudtrail,ec2,iam,s3,sts",
                "CLOUDTRAIL_RECORDING": "1",
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

    def client(self, service: str, *, credential: str = "") -> Any:
        """A boto3 client of the administrator, or of whoever holds `credential` (JSON)."""
        import boto3
        from botocore.config import Config

        self._session = self._session or boto3.Session(region_name=self.region)
        raw = json.loads(credential or self.credentials_file.read_text())
        return self._session.client(
            service,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=raw["access_key_id"],
            aws_secret_access_key=raw["secret_access_key"],
            aws_session_token=raw.get("session_token"),
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, proxies={}),
        )

    def record(self, *, on: bool) -> None:
        """Have CloudTrail record every call from now on, or none."""
        from clawback.services import loopback

        with loopback.client(5.0) as client:
            setting = {"cloudtrail._recording_enabled": str(on).lower()}
            client.post(f"{self.endpoint_url}/_ministack/config", json=setting).raise_for_status()

    def provision(self, agent: str, *, key_name: str = "aws-key", session_name: str = "aws-session") -> AwsGrants:
        """Give an agent a user `AGENT` with a key, a role `AGENT-role`, a session of it, a bucket `AGENT-data`."""
        iam, role_name, bucket = self.client("iam"), f"{agent}-role", f"{agent}-data"
        user_arn = iam.create_user(UserName=agent)["User"]["Arn"]
        trust = _policy("sts:AssumeRole", Principal={"AWS": user_arn})
        role = iam.create_role(RoleName=role_name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        iam.put_user_policy(
            UserName=agent, PolicyName="work", PolicyDocument=_policy("sts:*", "s3:ListAllMyBuckets", Resource="*")
        )
        iam.put_role_policy(
            RoleName=role_name,
            PolicyName="work",
            PolicyDocument=_policy("s3:ListAllMyBuckets", "s3:ListBucket", "s3:GetObject", Resource="*"),
        )
        s3 = self.client("s3")
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="orders.csv", Body=b"order,amount\n1,19.90\n")
        issued = iam.create_access_key(UserName=agent)["AccessKey"]
        key = json.dumps({"access_key_id": issued["AccessKeyId"], "secret_access_key": issued["SecretAccessKey"]})
        won = self.client("sts", credential=key).assume_role(RoleArn=role, RoleSessionName=f"agent-{agent}")[
            "Credentials"
        ]
        session = {
            "access_key_id": won["AccessKeyId"],
            "secret_access_key": won["SecretAccessKey"],
            "session_token": won["SessionToken"],
        }
        return AwsGrants(
            user=agent,
            role=role,
            bucket=bucket,
            key_ref=CredentialRef(
                kind="aws-access-key",
                name=key_name,
                identifiers={"user": agent, "access_key_id": issued["AccessKeyId"]},
            ),
            key=key,
            session_ref=CredentialRef(
                kind="aws-session",
                name=session_name,
                identifiers={"role": role, "session": f"agent-{agent}", "user": agent},
            ),
            session=json.dumps(session),
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        from clawback.services import loopback

        with loopback.client(1.0) as client:
            return client.get(f"{self.endpoint_url}/_ministack/health").status_code == 200

    def _write_credentials(self) -> None:
        handle = os.open(self.credentials_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}, file)


def _policy(*actions: str, **statement: Any) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), **statement}]}
    )
