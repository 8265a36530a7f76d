"""Run in a network namespace of its own: a Prefect server and a worker with all that they do, and what they send out.

    unshare --net python quiet.py STATE [--talk]

Every address is made to lead to loopback, so that whoever calls out finds somebody there, and each packet to an address
that is not loopback's own is seen: the last line printed is a JSON list of them. `--talk` calls out once on purpose.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

import rehearsal

from clawback.journal import Journal
from clawback.model import IncidentStatus
from clawback.services.prefect_server import PrefectServer
from clawback.services.process import Service

ETH_P_ALL = 3
LOOK_ON_SECONDS = 5  # after all is done: what is sent at intervals begins at the start


class Ear(threading.Thread):
    """Hears every packet of the namespace."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.heard: set[str] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self.over = threading.Event()

    def run(self) -> None:
        while True:
            try:
                packet = self._socket.recv(65535)
            except TimeoutError:  # what was sent before it was over has been heard
                if self.over.is_set():
                    return
                continue
            at = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            address = ipaddress.ip_address(at)
            if not address.is_loopback:
                self.heard.add(str(address))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("--talk", action="store_true")
    arguments = parser.parse_args()
    for words in ("link set lo up", "route add local default dev lo", "-6 route add local default dev lo"):
        subprocess.run(["ip", *words.split()], check=words.startswith("link"))
    ear = Ear()
    ear.start()
    if arguments.talk:
        talk()
    else:
        work(arguments.state)
        time.sleep(LOOK_ON_SECONDS)
    ear.over.set()
    ear.join()
    print(json.dumps(sorted(ear.heard)), flush=True)


def talk() -> None:
    try:
        urllib.request.urlopen("http://example.com/", timeout=2)
    except OSError:
        pass
    with socket.socket() as out:
        out.settimeout(2)
        try:
            out.connect(("198.51.100.7", 443))
        except OSError:
            pass


def work(state: Path) -> None:
    script, log = Path(__file__).with_name("fleet.py"), state / "worker.log"
    url = f"sqlite:///{state / 'journal.db'}"
    command = [sys.executable, str(script), str(state), url, "--offer", "--approvals", "shared"]
    with (
        PrefectServer(state, deadline=180) as server,
        Service("worker", command, log=log, ready=lambda: "are registered" in log.read_text(), deadline=180),
    ):
        journal = Journal(url)
        finding = dataclasses.replace(rehearsal.FINDING, events=("quiet",))
        incident = journal.open_or_join(finding, playbook="rehearse")[0].id
        until(lambda: journal.approvals(incident=incident))
        time.sleep(2)  # the question goes to Prefect
        asked = journal.approvals(incident=incident)[0]
        journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=True)
        until(lambda: journal.incident(incident).status is IncidentStatus.CLOSED)
        urllib.request.urlopen(server.api_url.removesuffix("/api"), timeout=30).read()  # the UI's page


def until(seen: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    main()
