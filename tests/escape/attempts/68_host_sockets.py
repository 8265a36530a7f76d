"""Talk to the core, the gateway and the shim over their own sockets.

gain: its own release, other agents' evidence, a policy of its choice
attack: T1559
stopped by: mount namespace, peer check
unconfined: host
also refused by: ENOENT, ECONNREFUSED, ECONNRESET, EPIPE
"""

import array
import json
import socket

from attacker import Refused, each, first, line


def http(path, request):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(3)
        sock.connect(path)
        sock.sendall(request.encode())
        answer = b""
        while b"\r\n" not in answer and (part := sock.recv(4096)):
            answer += part
    status = answer.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise Refused(f"{path.rpartition('/')[2]} answered {line(answer)!r}")
    return f"{path.rpartition('/')[2]} did {request.split(' HTTP')[0]}"


def descriptors(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(3)
        sock.connect(path)
        sock.sendmsg([b"0" * 32], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        answer = sock.recv(64)
    if answer != b"ok":
        raise Refused(f"core-fds.sock answered {answer!r}")
    return "core-fds.sock took descriptors"


def attach(path):
    with socket.socket(socket.AF_UNIX) as sock, socket.socket() as listener:
        sock.settimeout(3)
        sock.connect(path)
        line = json.dumps({"agent": "escaped", "instance": "escaped-1", "policy": "escape"}) + "\n"
        fds = array.array("i", [listener.fileno()])
        sock.sendmsg([line.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        answer = sock.recv(4096)
    if b'"ok"' not in answer or b"may not attach" in answer:  # any other answer means that the order was read
        raise Refused(f"gateway-attach.sock answered {answer[:80]!r}")
    return f"gateway-attach.sock read its order: {answer[:80]!r}"


def shim(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(3)
        sock.connect(path)
        sock.sendall(b"gateway\n")
        answer, given, _, _ = sock.recvmsg(4096, 1024)
    if not given:
        raise Refused(f"shim.sock answered {answer!r}")
    return "shim.sock gave its listener away"


def attempt(world):
    there = world["sockets"]
    return first(
        *each(there["core"], lambda path: http(path, "GET /agents HTTP/1.1\r\nHost: core\r\n\r\n")),
        *each(there["gateway"], lambda path: http(path, "GET /policies HTTP/1.1\r\nHost: gateway\r\n\r\n")),
        *each(there["gateway"], lambda path: http(path, "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")),
        *each(there["fds"], descriptors),
        *each(there["attach"], attach),
        *each(there["shim"], shim),
    )
