"""A real PostgreSQL server for rehearsals and tests: no network, one socket in a folder that only its user may enter.

The programs are those of Debian's package `postgresql`; where there are none, `find` says so and nothing is pretended.
It refuses to run as root, and as a user that has no name: root runs it as `postgres`, or as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from clawback.errors import Unreachable
from clawback.services.process import Service

__all__ = ["Postgres", "find"]

_USERS = ("postgres", "nobody")
_DEADLINE = 30.0


def find() -> Path | None:
    """The folder with `initdb` and `postgres` in it, the newest version's; None where there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _number(path.parent.name))
    found = [path for path in versions if (path / "initdb").exists() and (path / "postgres").exists()]
    if found:
        return found[-1]
    program = shutil.which("postgres")
    return Path(program).resolve().parent if program else None


def _user() -> pwd.struct_passwd:
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unreachable(f"PostgreSQL does not run as root, and there is no user {_USERS[0]}", hint="add one")


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Postgres:
    """One server. `folder` becomes its own; `url(database)` is SQLAlchemy's for the psycopg driver.

    with Postgres(folder) as server:
        Journal(server.url("clawback"))
    """

    folder: Path
    _service: Service | None = field(default=None, repr=False)

    def start(self) -> Self:
        """Make a cluster and start it: about a second. `Unreachable` where there is none or it does not come up."""
        programs = find()
        if programs is None:
            raise Unreachable("there is no PostgreSQL on this machine", hint="apt-get install postgresql")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        user = _user() if os.geteuid() == 0 else None
        if user is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        data = self.folder / "data"
        if not data.exists():
            made = subprocess.run(
                [
                    programs / "initdb", "--pgdata", data, "--username", "clawback", "--auth", "trust",
                    "--encoding", "UTF8", "--locale", "C", "--no-sync",
                ],
                user=user and user.pw_uid, group=user and user.pw_gid, extra_groups=user and [],
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, cwd="/", capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode:
                raise Unreachable("PostgreSQL's initdb failed", hint=made.stderr[-500:])
        self._service = Service(
            "postgres",
            [programs / "postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses="],
            log=self.folder / "postgres.log",
            environment={"LC_ALL": "C"},
            workdir=Path("/"),
            user=user and user.pw_name,
            ready=self._answers,
            deadline=_DEADLINE,
        ).start()
        return self

    def stop(self) -> None:
        """Stop it, connections and all."""
        if self._service is not None:
            self._service.stop()
            self._service = None

    def create(self, database: str) -> str:
        """Make a database; its URL."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="clawback", dbname="postgres", autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(database)))
        return self.url(database)

    def url(self, database: str) -> str:
        """For SQLAlchemy. There is no secret in it: who may enter the folder may connect."""
        return f"postgresql+psycopg://clawback@/{database}?host={self.folder}"

    @property
    def service(self) -> Service:
        """The child process."""
        if self._service is None:
            raise Unreachable("PostgreSQL was not started")
        return self._service

    def _answers(self) -> bool:
        import psycopg

        with psycopg.connect(host=str(self.folder), user="clawback", dbname="postgres", connect_timeout=2):
            return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
