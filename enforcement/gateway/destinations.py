"""Turns an allowed host name into an address that may be connected to, and connects to exactly that address.

A name that policy allows may resolve to the host itself, its network, or a cloud's metadata service, on purpose (DNS
rebinding) or not. So the address is checked, not the name, and the checked address is the one connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from clawback.enforcement.gateway.sockets import close, tune_upstream
from clawback.enforcement.policy.names import Address, AmbiguousError, address_of, normal_host
from clawback.errors import InvalidInput

__all__ = ["Destinations", "ForbiddenAddressError", "UnreachableHostError", "forms"]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CONNECT_SECONDS = 10.0
_LOOKUP_SECONDS = 10.0
_LOOKUP_THREADS = 32


class ForbiddenAddressError(Exception):
    """The name leads only to addresses that no agent may reach; the text says which kind."""


class UnreachableHostError(Exception):
    """No address, or none that answers."""


class Destinations:
    """`resolve` goes before DNS; `allow_private` are networks (CIDR) reachable although they are not global.

    `upstream_ca` is a PEM file of roots that destinations' certificates may end in, beside the system's.
    """

    def __init__(
        self, resolve: Mapping[str, str], allow_private: Sequence[str], upstream_ca: Path | None = None
    ) -> None:
        self.tls = ssl.create_default_context()
        self.tls.set_alpn_protocols(["http/1.1"])
        if upstream_ca is not None:
            self.tls.load_verify_locations(upstream_ca)
        self._private = tuple(_network(text) for text in allow_private)
        self._names: dict[str, Address] = {}
        # Threads of its own: lookups that hang must not stand in the way of the policy store's writes.
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="lookup")
        for name, text in resolve.items():
            try:
                self._names[normal_host(name)] = ipaddress.ip_address(text)
            except (AmbiguousError, ValueError):
                raise InvalidInput(
                    f"gateway.resolve: {name!r}: not a host name and an address",
                    hint="such as api.example.com: 192.0.2.7",
                ) from None

    def forbidden(self, address: Address, networks: Sequence[str] = ()) -> str:
        """Why no agent may reach the address; empty where it may.

        `networks` are those in which a rule wants all its addresses to be, private ones among them; what leads to the
        host itself or its link is none of them, whatever a rule says.
        """
        within = tuple(_network(text) for text in networks)
        if within and not any(address.version == network.version and address in network for network in within):
            return "not within the rule's allowed_ips:"
        for form in forms(address):
            if any(form.version == network.version and form in network for network in self._private):
                continue
            for kind, holds in (
                ("loopback", form.is_loopback),
                ("link-local", form.is_link_local),
                ("multicast", form.is_multicast),
                ("unspecified", form.is_unspecified),
                ("private or reserved", not form.is_global and not within),
            ):
                if holds:
                    return kind
        return ""

    async def addresses(self, host: str, port: int, networks: Sequence[str] = ()) -> tuple[Address, ...]:
        """Where the normal name `host` may be connected to; with `networks` only if all of it lies in them."""
        literal = address_of(host) or self._names.get(host)
        found = (literal,) if literal is not None else await self._lookup(host, port)
        allowed = tuple(address for address in found if not self.forbidden(address, networks))
        if not allowed or (networks and len(allowed) < len(found)):
            why = next(reason for address in found if (reason := self.forbidden(address, networks)))
            raise ForbiddenAddressError(f"{why} address refused")
        return allowed

    async def _lookup(self, host: str, port: int) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await loop.run_in_executor(
                    self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                )
        except TimeoutError:
            raise UnreachableHostError("name lookup timed out") from None
        except (OSError, UnicodeError):
            raise UnreachableHostError("name does not resolve") from None
        unique = dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
        if not unique:
            raise UnreachableHostError("name does not resolve")
        return tuple(unique)

    def close(self) -> None:
        """Forget lookups that have not begun."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def connect(self, addresses: Sequence[Address], port: int) -> socket.socket:
        """A socket connected to the first of the addresses that answers."""
        loop = asyncio.get_running_loop()
        last = "no answer"
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                tune_upstream(sock)
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await loop.sock_connect(sock, (str(address), port))
            except TimeoutError:
                close(sock)
                last = "timed out"
            except OSError as error:
                close(sock)
                last = error.strerror or "failed"
            except BaseException:
                close(sock)
                raise
            else:
                return sock
        raise UnreachableHostError(f"connect: {last}")


def forms(address: Address) -> tuple[Address, ...]:
    """The address and those that it carries inside: IPv4-mapped, NAT64, 6to4 and Teredo reach what they wrap."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, *address.teredo)
    return (address,)


@lru_cache(maxsize=1024)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput(f"gateway.allow_private: {error}", hint="such as 127.0.0.1/32 or 10.1.0.0/16") from None
