"""Which system calls each agent was denied in its first 72 hours under a policy version, so that a new one is news.

One small file per agent in `STATE/baselines/`, replaced as a whole whenever it changes: it outlives the core, watch,
the host's restart and every rotation of the telemetry. A kill loses nothing that was learnt a second before, unless so
many agents were denied something at once that writing it down takes its turn; a power cut may lose the last seconds.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from clawback.enforcement.telemetry.roster import Tracked

__all__ = ["PERIOD_NS", "Baselines"]

PERIOD_NS = 72 * 3_600 * 1_000_000_000
"""The source documents' "not seen in the first 72 hours of operation"."""

_CALLS = 1024  # per agent and version; Linux has fewer, and what is beyond counts as known
_VERSIONS = 4  # per agent: the newest seen
_AGENTS = 4096  # held in memory; the others are read again

_log = structlog.get_logger()


@dataclass(slots=True)
class _Version:
    since_ns: int
    calls: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Agent:
    versions: dict[str, _Version] = field(default_factory=dict)
    dirty: bool = False


class Baselines:
    """Not thread-safe. Keyed by agent and policy version, not by instance: a relaunch is no new beginning."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._agents: OrderedDict[str, _Agent] = OrderedDict()

    def denied(self, tracked: Tracked, call: str, at_ns: int) -> bool:
        """Note a denial; True if it is the first of this call, after a baseline of 72 hours that did not have it."""
        agent = self._agent(tracked.agent)
        version = self._version(agent, tracked)
        if call in version.calls or call in version.told or len(version.calls) + len(version.told) >= _CALLS:
            return False
        agent.dirty = True
        if at_ns - version.since_ns < PERIOD_NS:
            version.calls.add(call)
            return False
        version.told.add(call)
        return True

    def started(self, tracked: Tracked) -> None:
        """Note that an instance runs: its baseline begins with the first one of its policy version."""
        self._version(self._agent(tracked.agent), tracked)

    def save(self, seconds: float = math.inf) -> None:
        """Write down what has changed, those first that wait longest, for so long; the others the next time. A failure
        is logged and tried again.
        """
        until = time.monotonic() + seconds
        for name, agent in self._agents.items():
            if agent.dirty:
                if time.monotonic() > until:
                    return
                try:
                    self._write(name, agent)
                except OSError as error:
                    _log.error("baseline not saved", agent=name, error=error.strerror)
                else:
                    agent.dirty = False

    def _version(self, agent: _Agent, tracked: Tracked) -> _Version:
        key = f"{tracked.policy}/{tracked.policy_version}"
        version = agent.versions.get(key)
        if version is None:
            version = agent.versions[key] = _Version(tracked.since_ns)
            agent.dirty = True
            if len(agent.versions) > _VERSIONS:
                del agent.versions[min(agent.versions, key=lambda name: agent.versions[name].since_ns)]
        return version

    def _agent(self, name: str) -> _Agent:
        agent = self._agents.get(name)
        if agent is None:
            agent = self._agents[name] = self._read(name)
            if len(self._agents) > _AGENTS:
                oldest = next(iter(self._agents))
                if self._agents[oldest].dirty:
                    self.save()
                del self._agents[oldest]
        self._agents.move_to_end(name)
        return agent

    def _read(self, name: str) -> _Agent:
        try:
            found = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
            return _Agent(
                {
                    str(key): _Version(int(kept["since_ns"]), _texts(kept["calls"]), _texts(kept["told"]))
                    for key, kept in found.items()
                }
            )
        except FileNotFoundError:
            return _Agent()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Learning begins anew: without a baseline nothing would be news for ever.
            _log.error("baseline unreadable; it begins anew", agent=name, error=type(error).__name__)
            return _Agent()

    def _write(self, name: str, agent: _Agent) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        body = {
            key: {"since_ns": kept.since_ns, "calls": sorted(kept.calls), "told": sorted(kept.told)}
            for key, kept in agent.versions.items()
        }
        new = self._folder / f".{name}.new"
        new.write_text(json.dumps(body), encoding="utf-8")
        new.replace(self._folder / f"{name}.json")


def _texts(found: object) -> set[str]:
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise TypeError("not a list of names")
    return set(found[:_CALLS])
