"""Isolated but for named responders: an allow-list of addresses and ports that an agent may still reach.

The network is cut first, as without it. Then a relay takes the gateway's place at the agent's listener (the gateway
must have let go of it: `GatewayLink.suspend`), and loopback comes back with 127.0.0.1 alone. Should the relay die,
nobody answers there. Should somebody else answer, all is cut again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import capabilities, netlink
from clawback.enforcement.quarantine import inside, isolate, mounted, relay, tree, ways_out
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import GATEWAY_PORT, Sandbox
from clawback.errors import ClawbackError, InvalidInput, NotEnforced
from clawback.model import Level, LevelResult

__all__ = ["checked", "end", "let", "ordered", "probe"]

RECORD = "isolate-allow.json"
"""In the sandbox's folder: `allow`, and the relay's `pid` and `ticks`."""

_MOST = 16
_ELSEWHERE = "192.0.2.1:9"
"""Of the range for documentation: on nobody's allow-list."""
_TRIES = 3
"""Were the gateway still at the listener, one of several would reach it."""
_LOOPBACK6 = netlink.Address(socket.AF_INET6, 1, 128, socket.inet_pton(socket.AF_INET6, "::1"))
_SECONDS = 2.0


def checked(allow: tuple[str, ...]) -> tuple[str, ...]:
    """The same, in one spelling. `InvalidInput` for anything that is no `ADDRESS:PORT`, or is too wide."""
    found = []
    for one in allow:
        try:
            host, port = relay.split(one)
            address = ipaddress.ip_address(host)
        except ValueError:
            raise InvalidInput(
                f"allow: {one[:80]!r} is no address and port", hint="as in 192.0.2.7:443 or [2001:db8::7]:443; no names"
            ) from None
        if not 0 < port < 1 << 16 or address.is_unspecified or address.is_multicast:
            raise InvalidInput(f"allow: {one[:80]!r} is no one's address and port", hint="name one responder each")
        found.append(f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
    if len(found) > _MOST:
        raise InvalidInput(f"allow: {len(found)} destinations", hint=f"at most {_MOST}: responders, not a network")
    return tuple(dict.fromkeys(found))


def ordered(box: Sandbox) -> tuple[str, ...]:
    """The allow-list that stands, empty without one."""
    return tuple(_record(box).get("allow", ()))


def let(box: Sandbox, allow: tuple[str, ...], run: Run, cut: LevelResult) -> LevelResult:
    """After the network was cut (`cut` says how that came out): open the way to these alone, and try it from inside."""
    clock = Clock(Level.ISOLATE)
    if not capabilities.effective(capabilities.SYS_ADMIN):
        return clock.of(cut.enforcement, f"{cut.observed}; nothing is let through without root", cut.missing)
    before = _record(box)
    try:
        if before.get("allow") != list(allow) or not _alive(before):
            end(box)
            started = run("clawback.enforcement.quarantine.relay:run", {"box": asdict(box), "allow": list(allow)})
            draft = Path(box.folder, RECORD + ".tmp")
            draft.write_text(json.dumps({"allow": list(allow), **started}))
            draft.replace(Path(box.folder, RECORD))
        with inside.opened(box, (inside.ROUTE,)) as (route,):
            for link in netlink.links(route):
                netlink.set_link(route, link.index, up=True)
            netlink.withdraw(route, (_LOOPBACK6,), ())
    except (OSError, NotEnforced, ClawbackError) as error:
        clock.count(**cut.counts)
        return clock.of(cut.enforcement, f"{cut.observed}; nothing is let through: {error}", cut.missing)
    result = probe(box)
    if not result.counts.get("uncut", 1):
        return result
    end(box)  # somebody else answers too, or an address came along: nobody is let through then
    again = isolate.apply(box)
    return clock.of(
        again.enforcement, f"{again.observed}; nobody is let through: {'; '.join(result.missing)}", again.missing
    )


def probe(box: Sandbox) -> LevelResult:
    """From inside: the listener refuses what is not on the list and names itself; what is on it is answered."""
    clock = Clock(Level.ISOLATE)
    allow = ordered(box)
    kinds = (inside.ROUTE, inside.DIAG, inside.TCP6, *[inside.TCP4] * (_TRIES + len(allow)))
    try:
        with inside.opened(box, kinds) as (route, diag, six, *fours):
            addresses = [one.text for one in netlink.addresses(route)]
            refused = [_asked(one, _ELSEWHERE) for one in fours[:_TRIES]]
            answers = {one: _asked(link, one) for one, link in zip(allow, fours[_TRIES:], strict=True)}
            by_six = six.connect_ex(("::1", GATEWAY_PORT, 0, 0))
            mounts = mounted.view(box)
            ways = ways_out.found(box, diag, ways_out.shims(box), mounts)
            bound = ways_out.reachable(box, mounts)
    except ProcessLookupError:
        return clock.full("the sandbox has ended") if tree.gone(box) else clock.none("its first process is gone")
    except OSError as error:
        return clock.none(f"the network namespace could not be read: {error.strerror}", "the proof of isolation")
    missing = [f"address {one} is there" for one in addresses if one != "127.0.0.1/8"]
    missing += sorted({f"connect to what is not allowed: {one}" for one in refused if one not in {"403", "no answer"}})
    missing += ["connect to ::1 succeeds"] * (by_six == 0)
    silent = sum("200" not in said and "502" not in said for said in answers.values())
    clock.count(uncut=len(missing), drift=len(missing) + silent, addresses=len(addresses), leads_out=len(ways))
    missing += ways_out.named(ways) + bound
    observed = f"by 127.0.0.1:{GATEWAY_PORT} alone: " + ", ".join(f"{one} {said}" for one, said in answers.items())
    return clock.judged(f"{observed}; anything else: {', '.join(sorted(set(refused)))}", tuple(missing), anything=True)


def end(box: Sandbox) -> None:
    """No relay any more, and no order for one."""
    record = _record(box)
    if _alive(record):
        handle = os.pidfd_open(record["pid"])
        try:
            if _alive(record):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    for _ in tree.until(_SECONDS):
        if not _alive(record):
            break
    Path(box.folder, RECORD).unlink(missing_ok=True)


def _asked(link: socket.socket, destination: str) -> str:
    """The status that a CONNECT is answered with, `no answer`, or who answered if it was not the relay."""
    link.settimeout(_SECONDS)
    try:
        link.connect(("127.0.0.1", GATEWAY_PORT))
        link.sendall(f"CONNECT {destination} HTTP/1.1\r\n\r\n".encode())
        answer = link.recv(512)
    except OSError:
        return "no answer"
    status = answer[9:12].decode("ascii", "replace")
    return status if relay.MARK in answer else f"answered by another than the relay ({status})"


def _alive(record: dict[str, Any]) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
        return tree.start_ticks(record["pid"]) == record["ticks"] and tree.status(record["pid"]).state not in "ZX"
    return False


def _record(box: Sandbox) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(Path(box.folder, RECORD).read_text())
    except FileNotFoundError:
        return {}
    return record
