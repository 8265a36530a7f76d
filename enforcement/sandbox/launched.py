"""A started agent, as the one who started it holds it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable

__all__ = ["Launched"]


@dataclass(slots=True)
class Launched:
    """A started agent, its descriptors the caller's to close.

    `listener_fd` is the gateway's socket inside it, -1 where its policy has no network; `end` tells how it ended.
    """

    record: Sandbox
    listener_fd: int
    end: socket.socket

    def wait(self, timeout: float | None = None) -> int:
        """The command's exit status, 128 + n for signal n; for one caller, once.

        `TimeoutError` when it still runs, `Unreachable` when the shim is gone.
        """
        self.end.settimeout(timeout)
        try:
            message, _ = wire.receive(self.end)
        except (wire.Closed, ConnectionResetError):
            raise Unreachable(
                f"agent {self.record.agent}: its shim is gone", hint="`clawback agents` says what is left of it"
            ) from None
        return int(message["exit"]["status"])

    def close(self) -> None:
        """Let go of the descriptors; the agent runs on."""
        self.end.close()
        if self.listener_fd >= 0:
            os.close(self.listener_fd)
            self.listener_fd = -1
