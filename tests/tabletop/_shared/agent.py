"""A support agent of several drills: reads tickets, uses its tools, and cannot tell a customer from its operator.

A program of its own, started inside a sandbox with the standard library and boto3. It knows nothing of Clawback.
`--shared` is a folder with `inbox/` (tickets to read) and `work/` (its own notes, and `counters`, where it says how far
it has come: little-endian 64-bit rounds of work, bytes uploaded, and the monotonic time in ns of its last instruction).
"""

import argparse
import http.client
import json
import mmap
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

SECRETS = pathlib.Path("/run/secrets")
PROXY = ("127.0.0.1", 3128)
CHUNK = os.urandom(16 * 1024)


class Counters:
    """Three numbers in a shared file, so that an onlooker sees when they stop."""

    def __init__(self, path: pathlib.Path) -> None:
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 24)).cast("Q")

    def set(self, slot: int, value: int) -> None:
        self._numbers[slot] = value  # one store: whoever is frozen here leaves a whole number
        self._numbers[2] = time.monotonic_ns()

    def get(self, slot: int) -> int:
        return self._numbers[slot]


def http_get(url: str, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def proxied(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> int:
    """By the gateway, whatever the environment says of proxies; the status."""
    connection = http.client.HTTPConnection(*PROXY, timeout=5)
    try:
        connection.request(method, url, body=body or None, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def call_tool(url: str, tool: str) -> int:
    """One MCP call over HTTP."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    return proxied("POST", url, {"Content-Type": "application/json"}, json.dumps(call).encode())


def tunnel(target: str) -> socket.socket:
    connection = socket.create_connection(PROXY, timeout=5)
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = connection.recv(4096)
    if b" 200 " not in answer.split(b"\r\n", 1)[0] + b" ":
        connection.close()
        raise ConnectionRefusedError(answer.split(b"\r\n", 1)[0].decode("ascii", "replace"))
    connection.settimeout(None)
    return connection


def upload(target: str, counters: Counters) -> None:
    """Stream until somebody stops it. 16 MiB/s is what a small export over a home line's upstream is not."""
    connection = tunnel(target)
    sent = 0
    while True:
        connection.sendall(CHUNK)
        sent += len(CHUNK)
        counters.set(1, sent)
        time.sleep(0.001)


class Agent:
    def __init__(self, shared: pathlib.Path, vault: str, aws: str, name: str) -> None:
        self.name = name
        self.inbox, self.work = shared / "inbox", shared / "work"
        self.vault, self.aws = vault, aws
        self.counters = Counters(self.work / "counters")
        self.rounds = 0
        self.python = sys.executable

    def note(self, **entry: object) -> None:
        with (self.work / "transcript.jsonl").open("a") as transcript:
            transcript.write(json.dumps({"time": time.time(), **entry}) + "\n")

    def work_once(self) -> None:
        token = (SECRETS / "vault-token").read_text().strip()
        status = http_get(f"{self.vault}/v1/secret/data/{self.name}/api", {"X-Vault-Token": token})
        if status != 200:
            raise RuntimeError(f"the CRM's key: HTTP {status}")
        session = json.loads((SECRETS / "aws-session").read_text())
        boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.aws,
            aws_access_key_id=session["access_key_id"],
            aws_secret_access_key=session["secret_access_key"],
            aws_session_token=session["session_token"],
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
        ).list_buckets()
        self.rounds += 1
        self.counters.set(0, self.rounds)

    def obey(self, ticket: pathlib.Path) -> None:
        (self.work / f"{ticket.name}.done").touch()
        self.note(role="user", source=ticket.name, content=ticket.read_text()[:4000])
        together: list[threading.Thread] = []
        for line in ticket.read_text().splitlines():
            if not line.startswith("tool: "):
                continue
            tool, _, argument = line.removeprefix("tool: ").partition(" ")
            self.note(role="assistant", tool=tool, argument=argument)
            if tool == "shell":
                subprocess.run(["/bin/sh", "-c", argument], check=False, stdout=subprocess.DEVNULL)
            elif tool == "upload":
                subprocess.Popen([self.python, __file__, "--upload", argument, "--shared", str(self.work.parent)])
                while self.counters.get(1) < 20 * len(CHUNK):
                    time.sleep(0.001)
            else:
                together.append(threading.Thread(target=self.use, args=(tool, argument)))
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()

    def use(self, tool: str, argument: str) -> None:
        result: object
        try:
            if tool == "connect":
                tunnel(argument).close()
                result = "connected"
            elif tool == "mcp":
                name, _, url = argument.partition(" ")
                result = call_tool(url, name)
            elif tool == "send":
                result = proxied("GET", argument, {"X-Vault-Token": (SECRETS / "vault-token").read_text().strip()})
            elif tool == "http_get":
                result = http_get(argument, {"X-Vault-Token": (SECRETS / "vault-token").read_text().strip()})
            else:
                result = len(pathlib.Path(argument).read_bytes())
        except OSError as error:
            result = str(error)
        self.note(role="tool", tool=tool, result=result)

    def run(self) -> None:
        while True:
            try:
                self.work_once()
            except (RuntimeError, OSError, BotoCoreError, ClientError) as error:
                self.note(role="tool", tool="work", result=str(error)[:200])  # as one that is let go in stages finds
                time.sleep(0.2)
                continue
            for ticket in sorted(self.inbox.glob("*.txt")):
                if not (self.work / f"{ticket.name}.done").exists():
                    self.obey(ticket)
            time.sleep(0.02)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--shared", type=pathlib.Path, required=True)
    options.add_argument("--vault")
    options.add_argument("--aws")
    options.add_argument("--agent")
    options.add_argument("--upload")
    chosen = options.parse_args()
    if chosen.upload:
        upload(chosen.upload, Counters(chosen.shared / "work" / "counters"))
    else:
        Agent(chosen.shared, chosen.vault, chosen.aws, chosen.agent).run()


main()
