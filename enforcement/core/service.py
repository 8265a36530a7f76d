"""The core without its HTTP: every room, put together, started and closed in order."""

from __future__ import annotations

from collections.abc import Sequence

from clawback.enforcement.core.desk import Desk
from clawback.enforcement.core.ends import Ends
from clawback.enforcement.core.gateway_link import GatewayLink
from clawback.enforcement.core.halting import Halting
from clawback.enforcement.core.halts import Halts
from clawback.enforcement.core.health import Health
from clawback.enforcement.core.holds import Holds
from clawback.enforcement.core.keeper import Keeper
from clawback.enforcement.core.levels import Levels
from clawback.enforcement.core.metrics import Metrics
from clawback.enforcement.core.orders import Orders
from clawback.enforcement.core.outfit import caller, destined, resolve
from clawback.enforcement.core.parts import CoreParameters, Parts
from clawback.enforcement.core.snapshots import Snapshots
from clawback.enforcement.core.specs import Specs
from clawback.enforcement.core.starts import Starts
from clawback.enforcement.core.strikes import Strikes
from clawback.enforcement.core.watchdog import Watchdog
from clawback.enforcement.quarantine import stop
from clawback.enforcement.sandbox.attempt import attempt
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.enforcement.supervise.link import SupervisorLink
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.errors import InvalidInput
from clawback.model import Attempt, AttemptResult, Level, LevelResult, Lifecycle, Severity

__all__ = ["Service"]


class Service:
    """Thread-safe. Rooms: `parts` (who is there), `starts`, `orders`, `strikes`, `halting`, `ends`, `snapshots`,
    `health`; they raise as `clawback.world.Core` says.
    """

    def __init__(self, parameters: CoreParameters) -> None:
        state = parameters.state
        metrics = Metrics()
        self._desk = Desk(
            lambda instance: caller(self.parts, instance).box,
            lambda instance, name: resolve(self.parts, instance, name),
            lambda instance: destined(self.parts, instance),
        )
        self.parts = Parts(
            parameters=parameters,
            holds=Holds(state / "holds"),
            halts=Halts(state / "halts"),
            specs=Specs(state / "agents"),
            telemetry=SandboxTelemetry(
                state / "telemetry",
                uid_base=parameters.uid_base,
                landlock_audit=parameters.landlock_audit,
                trace=parameters.trace,
                bound_audit_wait=parameters.bound_audit_wait,
            ),
            metrics=metrics,
            link=GatewayLink(state / "run" / "gateway-attach.sock", self._desk),
            supervision=SupervisorLink(
                state,
                cgroup=parameters.cgroup,
                expiry_seconds=parameters.escalation_seconds,
                lost=self._unsupervised,
            ),
            spawner=Spawner.start(
                state, cgroup=parameters.cgroup, uid_base=parameters.uid_base, canaries=parameters.canaries
            ),
        )
        self._levels = Levels(self.parts)
        self.ends = Ends(self.parts)
        self.orders = Orders(self.parts, self._levels)
        self.strikes = Strikes(self.parts)
        self.snapshots = Snapshots(self.parts)
        self.halting = Halting(self.parts, self._levels, self.orders, self.snapshots)
        self._watchdog = Watchdog(self.parts.telemetry, self.ends.ended, heartbeat_seconds=parameters.heartbeat_seconds)
        self.starts = Starts(self.parts, self._levels, self.ends, self._watchdog)
        self._keeper = Keeper(self.parts, self.orders, self.strikes, seconds=parameters.verify_seconds)
        self.health = Health(
            self.parts,
            {
                "telemetry": lambda: self.parts.telemetry.alive,
                "watchdog": lambda: self._watchdog.alive,
                "keeper": lambda: self._keeper.alive,
                "gateway link": lambda: self.parts.link.alive,
            },
        )
        metrics.watch(self.health.count)

    def start(self) -> None:
        """Find the agents that run, assert their holds before anything else, then watch and report."""
        found = self.starts.find()
        self.parts.telemetry.start()
        self.parts.link.start()
        self._watchdog.start()
        self.starts.follow_found()
        self._keeper.start()
        self.parts.say(Lifecycle.START, "core", "started", message=f"{found} agents found")

    def close(self) -> None:
        """Stop everything but the agents, which run on and are found again."""
        self.parts.say(Lifecycle.STOP, "core", "stopped")
        self._keeper.close()
        self.halting.close()
        self._watchdog.close()
        self.parts.link.close()
        self.parts.supervision.close()
        self._desk.close()
        self.parts.spawner.close()
        self.parts.telemetry.close()

    def _unsupervised(self, why: str) -> None:
        message = f"the supervisor is gone ({why}): what agents escalate is refused until it is back"
        self.parts.say(Lifecycle.STOP, "supervisor", "lost", severity=Severity.HIGH, message=message)

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        """Read one level back; of an earlier instance whether anything is left of it."""
        entry = self.parts.entry(agent)
        if instance in ("", entry.box.instance):
            return self._levels.probe(entry, level)
        earlier = self.parts.earlier(agent, instance)
        if level is not Level.STOP:
            raise InvalidInput(f"level: {instance} is over, and held at nothing", hint="ask for stop")
        return stop.probe(earlier)

    def try_inside(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        """Try each from inside."""
        return attempt(self.parts.spawner, self.parts.running(agent).box, attempts)
