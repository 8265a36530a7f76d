"""The versions in force: taken from the store, kept up with edits, asked for each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from clawback.enforcement.gateway.latency import Latencies
from clawback.enforcement.gateway.metrics import Metrics
from clawback.enforcement.gateway.records import Records
from clawback.enforcement.policy.endpoint_engine import Programs
from clawback.enforcement.policy.engine import Engine
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.orders import NOTHING, Ruling
from clawback.enforcement.policy.store import PolicyStore, Stamp
from clawback.enforcement.policy.types import NetworkPolicy, PolicyFile
from clawback.enforcement.policy.width import wider
from clawback.errors import ClawbackError, NotFound
from clawback.model import Decision, InferenceEndpoint, InferenceKind, PolicyVersion

__all__ = ["ActivePolicies", "Judged"]

_POLL_SECONDS = 0.04  # an edit is taken when two looks in a row see the same, so within 80 ms and the time to read it

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Active:
    version: PolicyVersion
    engine: Engine
    models: tuple[InferenceEndpoint, ...]
    widened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision, and what whoever acts on it must keep to or ask again with (see `policy.verdict`).

    `ruling` is the orders' part in it. `any_body`: the body is an order's to look at, in whatever form it comes.
    """

    decision: Decision
    networks: tuple[str, ...] = ()
    upgrade: str = ""
    sealed: bool = False
    wants_caller: bool = False
    wants_body: int = 0
    any_body: bool = False
    ruling: Ruling = NOTHING


class ActivePolicies:
    """`on_change(policy)` is called after a policy's active version changed."""

    def __init__(
        self, store: PolicyStore, records: Records, metrics: Metrics, on_change: Callable[[str], None]
    ) -> None:
        self.store = store
        self._records = records
        self._metrics = metrics
        self._on_change = on_change
        self.latencies = Latencies()
        self._active: dict[str, _Active] = {}
        self._seen: dict[str, tuple[Stamp, Stamp]] = {}  # at the last look
        self._taken: dict[str, tuple[Stamp, Stamp]] = {}  # when it was last acted on

    def versions(self) -> dict[str, int]:
        """The version in force by policy."""
        return {name: active.version.version for name, active in self._active.items()}

    def models(self) -> tuple[InferenceEndpoint, ...]:
        """Where models are, by all policies in force."""
        found = (endpoint for name in sorted(self._active) for endpoint in self._active[name].models)
        return tuple(dict.fromkeys(found))

    def active(self, policy: str) -> PolicyVersion:
        """The version that decides now."""
        if policy not in self._active:
            raise NotFound(f"no policy {policy!r} is in force", hint="see `clawback policy list`")
        return self._active[policy].version

    def judge(
        self,
        policy: str,
        *,
        host: str,
        port: int,
        method: str,
        path: str,
        programs: Programs | None = None,
        body: bytes | None = None,
    ) -> Judged:
        """What the version in force says; without one everything is denied."""
        active = self._active.get(policy)
        if active is None:
            none = Decision(allowed=False, rule="", reason="no policy in force", policy=policy, policy_version=0)
            return Judged(none)
        begun = time.perf_counter()
        verdict = active.engine.decide(host=host, port=port, method=method, path=path, programs=programs, body=body)
        took = time.perf_counter() - begun
        self._metrics.decision_seconds.observe(took)
        self.latencies.add(policy, took)
        decision = Decision(
            allowed=verdict.allowed,
            rule=verdict.rule,
            reason=verdict.reason,
            policy=policy,
            policy_version=active.version.version,
            level=verdict.level,
            inspect=verdict.inspect,
            audit=verdict.audit,
            calls=verdict.calls,
        )
        return Judged(
            decision,
            networks=verdict.networks,
            upgrade=verdict.upgrade,
            sealed=verdict.sealed,
            wants_caller=verdict.wants_caller,
            wants_body=verdict.wants_body,
        )

    async def refresh(self, policy: str, *, announce: bool = True) -> PolicyVersion:
        """Bring the newest recorded version into force, if it is not yet. A change that is none is not announced."""
        begun = time.perf_counter()
        found = await asyncio.to_thread(self._newest, policy)
        # Another refresh may have overtaken this one while it read: versions only rise.
        before = self._active.get(policy)
        if before is not None and before.version.version >= found.version.version:
            if before.version.version == found.version.version:
                self._active[policy] = found  # a mark may have changed
            return self._active[policy].version
        self._active[policy] = found
        self._metrics.policy_version.labels(policy).set(found.version.version)
        self._metrics.policy_loaded.labels(policy).set_to_current_time()
        self._metrics.reload_seconds.observe(time.perf_counter() - begun)
        if announce:
            previous = before.version.version if before else found.version.version - 1
            self._records.change(found.version, previous, found.widened)
        self._on_change(policy)
        return found.version

    async def follow(self) -> None:
        """Take edits and other processes' versions, until cancelled."""
        while True:
            for name in await asyncio.to_thread(self.store.names):
                try:
                    await self._look(name)
                except (ClawbackError, OSError) as error:
                    _log.error("policy not read; the version in force stays", policy=name, error=str(error))
            await asyncio.sleep(_POLL_SECONDS)

    async def start(self) -> None:
        """Bring everything recorded into force, edits made meanwhile included."""
        for name in self.store.names():
            try:
                await self._take(name, self.store.stamp(name), announce=False)
            except (ClawbackError, OSError) as error:
                _log.error("policy not read; its agents are denied everything", policy=name, error=str(error))

    async def _look(self, name: str) -> None:
        now = self.store.stamp(name)
        settled = self._seen.get(name) == now
        self._seen[name] = now
        # Only what has not changed since the last look: an editor may be in the middle of writing.
        if settled and self._taken.get(name) != now:
            await self._take(name, now)

    async def _take(self, name: str, stamp: tuple[Stamp, Stamp], *, announce: bool = True) -> None:
        self._taken[name] = stamp  # first, so that an error is reported once and not at every look
        edit = await asyncio.to_thread(self.store.edited, name)
        # At the start only what was edited while no gateway ran is a change; the rest was in force before.
        version = await self.refresh(name, announce=announce or edit.version is not None)
        if edit.refused is not None:
            why = f"{edit.refused.message} ({edit.refused.hint})" if edit.refused.hint else edit.refused.message
            self._records.change_refused(name, version.version, sha256=edit.sha256, author=edit.author, why=why)

    def _newest(self, policy: str) -> _Active:
        version = self.store.active(policy)
        file = self._file(version)
        models = tuple(_models(file.network))
        return _Active(version, Engine(file.network), models, self._widened(version, file))

    def _widened(self, version: PolicyVersion, file: PolicyFile) -> tuple[str, ...]:
        try:
            good = self.store.known_good(version.policy)
        except NotFound:
            return ()  # nothing was ever reviewed: there is nothing to be wider than
        return () if good.sha256 == version.sha256 else wider(file, self._file(good))

    def _file(self, version: PolicyVersion) -> PolicyFile:
        text = self.store.read(version.policy, version.version)
        return load(text, where=f"policy {version.policy} version {version.version}")


def _models(network: NetworkPolicy) -> Iterator[InferenceEndpoint]:
    """Hosts that the policy says are models (`model:`). Whole ones: a rule's paths are what it allows of them."""
    for rule in network.allow:
        for port in (rule.ports or (0,)) if rule.model else ():
            yield InferenceEndpoint(host=rule.domain, kind=InferenceKind(rule.model), port=port)
