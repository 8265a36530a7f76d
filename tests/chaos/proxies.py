"""What stands between a life and the real servers, in a process of its own: it delays, cuts, hangs, fails and lies.

    python proxies.py CONTROL WAYS      CONTROL: a socket's number; WAYS: JSON, name → where its server is

WAYS has `host:port` for HTTP, a path for PostgreSQL's socket, "" for the tracker, which lives in here. The control
socket takes a line of JSON, `faults` (see `outside.Fault`) and whether the tracker is to be `empty`, and answers each
with `ports`, `lied`, `issues`.

down      connections are refused, or cut where it is so for a while only
failing   500; of PostgreSQL a statement that fails for want of space
hanging   it is done, and nothing is answered until the client gives up
slow      it is done late
lying     HTTP only: what changes something is answered with success, and is not done
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import sys
from typing import Any

sys.path.insert(0, __file__.rpartition("/")[0])

from tracker import Tracker

SLOW_SECONDS = 0.15
FOR_LONG = 900
"""A fault that lasts for so many calls or more is there for the whole life: a part that is down then refuses."""
_ERROR = b"SERROR\0VERROR\0C53100\0Mno space left on device\0\0"
_FAILED = b"E" + (len(_ERROR) + 4).to_bytes(4, "big") + _ERROR
_READY = b"Z\0\0\0\5E"


class Way:
    """To one server. Faults count what is asked of it, from when they were set."""

    def __init__(self, name: str, server: str, tracker: Tracker) -> None:
        self.name, self.server, self.tracker = name, server, tracker
        self.asked = self.lied = 0
        self.faults: list[dict[str, Any]] = []
        self.listening: asyncio.Server | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        if self.listening is None:
            serve = self.stream if "/" in self.server else self.http
            self.listening = await asyncio.start_server(serve, "127.0.0.1", self.port)
            self.port = self.listening.sockets[0].getsockname()[1]

    async def set(self, faults: list[dict[str, Any]]) -> None:
        self.faults, self.asked = [one for one in faults if one["part"] == self.name], 0
        for task in self._tasks:
            task.cancel()  # what is left of the life before: it is dead, or gives up
        if any(one["kind"] == "down" and one["first"] <= 1 and one["last"] >= FOR_LONG for one in self.faults):
            if self.listening is not None:
                self.listening.close()
                self.listening = None
        else:
            await self.listen()

    def kind(self) -> str:
        self.asked += 1
        return next((one["kind"] for one in self.faults if one["first"] <= self.asked <= one["last"]), "")

    # -- HTTP: one request a connection ------------------------------------------------------------------------------

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        try:
            await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)  # type: ignore[arg-type]
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        method, target = head.decode("latin-1").split(" ")[:2]
        kind = self.kind()
        if kind == "down":
            writer.transport.abort()
            return
        if kind == "failing":
            writer.write(_answer(500, {"errors": ["internal error"], "errorMessages": ["internal error"]}))
        elif kind == "lying" and (lie := _believable(self.name, method, target, body)) is not None:
            self.lied += 1
            writer.write(lie)
        else:
            if kind == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            answer = await self._forward(head, body, method, target, reader, writer)
            if kind == "hanging":
                await reader.read()  # until the client goes away
                return
            writer.write(answer)
        await writer.drain()

    async def _forward(
        self,
        head: bytes,
        body: bytes,
        method: str,
        target: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        if not self.server:
            return _answer(*self.tracker.answer(method, target, body))
        host, _, port = self.server.rpartition(":")
        there, to = await asyncio.open_connection(host, int(port))
        try:
            if b"upgrade: websocket" in head.lower():
                to.write(head)
                await asyncio.gather(_pump(reader, to), _pump(there, writer))
                return b""
            to.write(
                re.sub(rb"(?i)\r\n(connection|expect):[^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n" + body
            )
            answer = await there.read()
            if not re.search(rb"(?i)\r\nconnection: *close", answer.partition(b"\r\n\r\n")[0]):
                answer = answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            return answer
        finally:
            to.close()

    # -- PostgreSQL ---------------------------------------------------------------------------------------------------

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        answers = None
        try:
            there, to = await asyncio.open_unix_connection(self.server)
            silent = asyncio.Event()
            answers = asyncio.create_task(_pump(there, writer, silent))
            for number in itertools.count():
                piece = await reader.read(1 << 18)
                if not piece:
                    break
                kind = self.kind()
                if kind == "down":
                    break
                if kind == "hanging":
                    silent.set()
                if kind == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                if kind == "failing" and number > 1 and (ends := _whole(piece)):
                    writer.write(_FAILED + _READY * ends)
                else:
                    to.write(piece)
                    await to.drain()
            to.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)  # type: ignore[arg-type]
            if answers is not None:
                answers.cancel()
            writer.transport.abort()


def _whole(piece: bytes) -> int:
    """How many times the server would say that it is ready, where the piece is whole messages; 0 where it is not."""
    at = ends = 0
    kind = b""
    while at + 5 <= len(piece):
        kind = piece[at : at + 1]
        ends += kind in {b"Q", b"S"}
        at += 1 + int.from_bytes(piece[at + 1 : at + 5], "big")
    return ends if at == len(piece) and kind in {b"Q", b"S"} else 0


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event | None = None
) -> None:
    try:
        while piece := await reader.read(1 << 18):
            if silent is None or not silent.is_set():
                writer.write(piece)
                await writer.drain()
    except OSError:
        pass
    if silent is None or not silent.is_set():
        writer.close()


def _answer(status: int, value: Any, kind: str = "application/json") -> bytes:
    body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
    length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n".encode() + body


def _believable(name: str, method: str, target: str, body: bytes) -> bytes | None:
    """What the server would answer to what changes something; None for what does not."""
    if name == "tickets":
        if method == "POST" and target.endswith("/issue"):
            return _answer(201, {"id": "9999", "key": "SEC-9999"})
        if method == "POST" and target.endswith("/comment"):
            return _answer(201, {"id": "1"})
        return _answer(204, None) if method == "PUT" else None
    if name == "vault":
        if "auth/token/create" in target:
            return _answer(200, {"auth": {"client_token": "hvs.made-up", "accessor": "made-up", "policies": []}})
        return _answer(204, None) if "revoke" in target or "destroy" in target else None
    if name == "aws":
        action = re.search(rb"(?:^|&)Action=((?:Create|Update|Delete|Put|Attach|Detach)\w+)", body)
        return _answer(200, _done(action[1].decode()), "text/xml") if action else None
    if method == "POST" and target.endswith("/set_state"):
        return _answer(201, {"state": None, "status": "ACCEPT", "details": {"type": "accept_details"}})
    return None


def _done(action: str) -> bytes:
    key = "<UserName>x</UserName><AccessKeyId>AKIAMADEUP0000000000</AccessKeyId><Status>Active</Status>"
    made = f"<AccessKey>{key}<SecretAccessKey>made-up</SecretAccessKey></AccessKey>"
    result = made if action == "CreateAccessKey" else ""
    return (
        f'<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


async def main(control: int, servers: dict[str, str]) -> None:
    tracker = Tracker()
    ways = {name: Way(name, server, tracker) for name, server in servers.items()}
    for way in ways.values():
        await way.listen()
    orders, said = await asyncio.open_connection(sock=socket.socket(fileno=control))
    while line := await orders.readline():
        order = json.loads(line)
        if order["empty"]:
            tracker.issues.clear()
        for way in ways.values():
            await way.set(order["faults"])
        state = {
            "ports": {name: way.port for name, way in ways.items()},
            "lied": sum(way.lied for way in ways.values()),
            "issues": {key: issue["fields"]["labels"] for key, issue in tracker.issues.items()},
        }
        said.write(json.dumps(state).encode() + b"\n")
        await said.drain()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
