"""HTTP to the servers that Clawback starts on this machine: without TLS, and past the environment's proxies."""

from __future__ import annotations

import functools
import ssl

import httpx

__all__ = ["client"]


def client(timeout: float) -> httpx.Client:
    """A client for a few calls; `timeout` in seconds."""
    return httpx.Client(trust_env=False, timeout=timeout, verify=_unused())


@functools.cache
def _unused() -> ssl.SSLContext:
    """Httpx wants one for every client, and reading the machine's certificates takes 20 ms: longer than most calls."""
    return ssl.create_default_context()
