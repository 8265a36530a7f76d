"""sandbox.check: a sandbox is not as launched, was not heard of, or is left out."""

from __future__ import annotations

from lies.answers import yes
from lies.case import Case, Lie
from lies.fleet import lists_only
from lies.ladder import stranger
from lies.record import vanishing
from lies.scenes import until

from clawback.actions.sandbox_check import ACTION
from clawback.connectors.telemetry import FileTelemetry
from clawback.model import Lifecycle, Source


def _last(scene, agent):
    """What the core's heartbeat last said of it."""
    events = FileTelemetry(scene.state / "telemetry").events(sources=(Source.SANDBOX,), agent=agent, since_ns=0).events
    return next((x.status for x in reversed(events) if isinstance(x, Lifecycle) and x.component == "sandbox"), "")


def _all_are(scene, status="alive"):
    until(lambda: {_last(scene, scene.agent), _last(scene, scene.worker)} == {status}, what=f"all to be {status}")


def _joined(scene, _outcome):
    """A process from outside comes to live in a sandbox."""
    stranger(scene)
    until(lambda: _last(scene, scene.agent) == "tampered", what="the core to see the stranger")


def _gone(scene):
    scene.closing.pop()()
    _all_are(scene)


def _left_out(scene, _outcome):
    lists_only(scene, scene.worker)


CASE = Case(
    action=ACTION,
    scene="fleet",
    before=_all_are,
    params=lambda _: {},
    holds=lambda scene, _: {_last(scene, scene.agent), _last(scene, scene.worker)} == {"alive"},
    lies=(
        *vanishing(Source.SANDBOX),
        Lie(what="a stranger lives in one", behind=_joined, mend=_gone),
        Lie(what="the core leaves one out", behind=_left_out),
        Lie(
            what="the core lists nobody",
            part="core",
            about=lambda request: request.path == "/agents",
            answer=yes([]),
        ),
    ),
    reads=("core",),
    changes_nothing="it reads the core's list of agents and what its heartbeats said of each",
)
