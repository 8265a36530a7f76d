"""A world in memory that holds state as the real one does, and that tests can make lie."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clawback.enforcement.policy.narrowing import draft
from clawback.enforcement.policy.order_calls import Content
from clawback.enforcement.policy.order_form import checked
from clawback.enforcement.policy.orders import Asked, Orders
from clawback.errors import NotFound, Refused, Unreachable
from clawback.model import (
    AgentInfo,
    AgentState,
    Attempt,
    AttemptResult,
    CredentialRef,
    Decision,
    Disposition,
    Draft,
    EgressOrder,
    Enforcement,
    Event,
    EvidenceBundle,
    FileActivity,
    Halt,
    HaltedAgent,
    HaltReport,
    Hold,
    HttpActivity,
    InferenceEndpoint,
    InferenceKind,
    KernelActivity,
    LaunchSpec,
    Level,
    LevelResult,
    Lifecycle,
    Narrowing,
    NetworkActivity,
    Order,
    PolicyVersion,
    Selector,
    SelectorKind,
    Source,
    Subject,
)
from clawback.reports.adf import request_words
from clawback.world import Audited, AuditLog, Sighted, World
from clawback.world.vault_engines import Reissue

GOOD = """\
networkPolicy:
  name: support
  egress:
    allow:
      - {name: api, domain: api.internal, ports: [80]}
"""
WIDE = GOOD + "      - {name: wide, domain: '*.partner.test'}\n"

TOKEN = CredentialRef(kind="vault-token", name="vault-token", identifiers={"accessor": "acc-1", "policies": "support"})


class MemoryTelemetry:
    """What was written. `deaf`: what the core denies is not logged; `down`: nothing can be read."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.deaf = False
        self.down = False

    def write(self, kind: type[Any], **fields: Any) -> Any:
        values: dict[str, Any] = {
            "time_ns": time.time_ns(),
            "writer": "w",
            "sequence": len(self.written) + 1,
            "source": Source.POLICY,
            "agent": "a",
            "disposition": Disposition.ALLOWED,
        }
        self.written.append(kind(**(values | fields)))
        return self.written[-1]

    def add(self, kind: type[Any], **fields: Any) -> Any:
        return self.write(kind, **({"instance": "i1", "policy": "support", "policy_version": 2} | fields))

    def denied(self, info: AgentInfo, attempt: Attempt) -> None:
        if self.deaf:
            return
        about = {"agent": info.agent, "instance": info.instance, "policy": info.policy}
        about["disposition"] = Disposition.BLOCKED
        if attempt.kind == "connect":
            host, _, port = attempt.target.rpartition(":")
            self.write(NetworkActivity, host=host, port=int(port), activity_id=NetworkActivity.REFUSE, **about)
        elif attempt.kind == "http":
            parts = urlsplit(attempt.target.partition(" ")[2])
            port = parts.port or 80
            method = attempt.target.partition(" ")[0]
            self.write(HttpActivity, method=method, host=parts.hostname, port=port, path=parts.path, **about)
        elif attempt.kind == "open":
            self.write(FileActivity, path=attempt.target, source=Source.SANDBOX, **about)
        else:
            self.write(KernelActivity, syscall=attempt.target, source=Source.SANDBOX, **about)

    def events(
        self,
        *,
        sources: Collection[Source] = tuple(Source),
        agent: str = "",
        instance: str = "",
        policy: str = "",
        since_ns: int,
        until_ns: int = 0,
        most: int = 20_000,
    ) -> Sighted:
        if self.down:
            raise Unreachable("the telemetry cannot be read")
        found = [
            x
            for x in self.written
            if x.source in sources
            and agent in ("", x.agent)
            and instance in ("", x.instance)
            and policy in ("", x.policy)
            and since_ns <= x.time_ns
            and (not until_ns or x.time_ns < until_ns)
        ]
        return Sighted(events=tuple(found[-most:]), complete=True)


class MemoryCore:
    """One host. `enforced` is the truth about each agent; `lies` are levels that `contain` claims and does not make."""

    def __init__(self, folder: Path, policies: MemoryPolicies, secrets: Any) -> None:
        self.folder, self.policies, self.secrets = folder, policies, secrets
        self.orders: MemoryOrders | None = None
        self.telemetry = MemoryTelemetry()
        self.transcripts: list[str] = []
        self.known: dict[str, AgentInfo] = {}
        self.enforced: dict[str, dict[Level, Enforcement]] = {}
        self.lies: set[Level] = set()
        self.observed: dict[Level, LevelResult] = {}
        self.open_calls: set[tuple[str, str]] = set()
        self.weaker_after_relaunch = False
        self.standing: dict[str, Halt] = {}
        self.unstoppable: set[str] = set()
        self.down = False
        self.calls: list[str] = []
        self.before_call: Callable[[str], None] | None = None

    def _ask(self, call: str) -> None:
        if self.down:
            raise Unreachable("the core does not answer")
        if self.before_call:
            self.before_call(call)
        self.calls.append(call)

    def agents(self) -> tuple[AgentInfo, ...]:
        self._ask("agents")
        return tuple(self.known.values())

    def agent(self, agent: str) -> AgentInfo:
        self._ask("agent")
        if agent not in self.known:
            raise NotFound(f"no agent {agent}")
        return self.known[agent]

    def launch(self, spec: LaunchSpec) -> AgentInfo:
        self._ask("launch")
        info = AgentInfo(
            agent=spec.agent,
            instance=f"i{len(self.known) + 1}",
            state=AgentState.RUNNING,
            pid=4242,
            command=spec.command,
            policy=spec.policy,
            policy_version=spec.policy_version,
            started_ns=time.time_ns(),
            layers={"network": Enforcement.FULL, "landlock": Enforcement.FULL},
            credentials=spec.credentials,
            tenant=spec.tenant,
            team=spec.team,
            tags=spec.tags,
            parent=spec.parent,
        )
        self.known[spec.agent] = info
        self.enforced[spec.agent] = {}
        return info

    def _result(self, agent: str, level: Level) -> LevelResult:
        if level in self.observed:
            return self.observed[level]
        found = self.enforced[agent].get(level, Enforcement.NONE)
        return LevelResult(level=level, enforcement=found, observed=f"{level.word} seen {found}", at_ns=time.time_ns())

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        self._ask(f"contain {level.word}")
        info = self.known[agent]
        if instance and instance != info.instance:
            raise Refused(f"{agent} is instance {info.instance}")
        orders = info.hold.orders if info.hold else ()
        before = next((one for one in orders if (one.incident or one.by) == (incident or by)), None)
        levels = tuple(sorted({*(before.levels if before else ()), level}))
        order = Order(levels=levels, reason=reason, by=by, incident=incident)
        self.known[agent] = replace(info, hold=Hold.of(agent, (*(one for one in orders if one is not before), order)))
        if level in self.lies:
            return LevelResult(level=level, enforcement=Enforcement.FULL, observed="done, believe me")
        self.enforced[agent][level] = Enforcement.FULL
        if level is Level.STOP:
            self.known[agent] = replace(self.known[agent], state=AgentState.EXITED, exit_status=-9)
        return self._result(agent, level)

    def probe(self, agent: str, level: Level) -> LevelResult:
        self._ask(f"probe {level.word}")
        return self._result(agent, level)

    def release(
        self, agent: str, *, levels: Sequence[Level] = (), reason: str, by: str, incident: str = ""
    ) -> tuple[LevelResult, ...]:
        self._ask("release")
        info = self.known[agent]
        orders = info.hold.orders if info.hold else ()
        mine = [one for one in orders if not incident or one.incident in ("", incident)]
        wanted = tuple(levels) or tuple(sorted({level for one in mine for level in one.levels}))
        after = [
            replace(one, levels=tuple(x for x in one.levels if x not in wanted)) if one in mine else one
            for one in orders
        ]
        hold = Hold.of(agent, tuple(one for one in after if one.levels))
        self.known[agent] = replace(info, hold=hold)
        for level in wanted:
            if level < Level.SEAL and level not in self.lies and level not in (hold.levels if hold else ()):
                self.enforced[agent].pop(level, None)
        return tuple(self._result(agent, level) for level in wanted)

    def relaunch(
        self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str, policy: str = ""
    ) -> AgentInfo:
        self._ask("relaunch")
        info = self.known[agent]
        if info.hold:
            raise Refused(f"{agent} is held")
        layers = dict.fromkeys(info.layers, Enforcement.PARTIAL) if self.weaker_after_relaunch else info.layers
        self.known[agent] = replace(
            info,
            instance=info.instance + "r",
            state=AgentState.RUNNING,
            exit_status=None,
            policy=policy or info.policy,
            policy_version=policy_version,
            layers=layers,
            credentials=self.secrets.refs(agent),
        )
        self.enforced[agent] = {}
        self.telemetry.write(
            Lifecycle,
            component="sandbox",
            status="started",
            activity_id=Lifecycle.START,
            source=Source.SANDBOX,
            instance=self.known[agent].instance,
        )
        return self.known[agent]

    def attempt(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        self._ask("attempt")
        results = tuple(self._tried(agent, x) for x in attempts)
        for result in results:
            if result.denied:
                self.telemetry.denied(self.known[agent], result.attempt)
        return results

    def _tried(self, agent: str, attempt: Attempt) -> AttemptResult:
        """By an order that is in force, else denied unless it is one of `open_calls`."""
        info = self.known[agent]
        subject = Subject(agent=agent, tenant=info.tenant, team=info.team, tags=info.tags)
        asks = self.orders if attempt.kind in ("connect", "http") else None
        said = asks.decide(info.policy, attempt, subject=subject) if asks else None
        if said is not None and said.orders:
            rules = " ".join(f"order:{order}" for order in said.orders)
            held = "it would be held" in said.reason
            detail = f"HTTP 100 Continue, by order {rules}" if held else f"HTTP 403 Forbidden, by order {rules}"
            return AttemptResult(attempt=attempt, denied=not held, detail=detail)
        return AttemptResult(
            attempt=attempt, denied=(attempt.kind, attempt.target) not in self.open_calls, detail="EACCES"
        )

    def evidence(self, agent: str, *, incident: str, transcripts: Sequence[str] = ()) -> EvidenceBundle:
        self._ask("evidence")
        folder = self.folder / (f"{incident}-transcripts" if transcripts else incident) / agent
        folder.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(self.transcripts if transcripts else (), start=1):
            (folder / f"transcript-{number:02}.jsonl").write_text(text)
        if transcripts:
            index = [{"shown": path.name} for path in sorted(folder.glob("transcript-*.jsonl"))]
            (folder / "transcripts.json").write_text(json.dumps(index))
        (folder / "processes.json").write_text("[]")
        (folder / "output.log").write_text("hello\n")
        files = [
            {"path": x.name, "sha256": sha256(x.read_bytes()).hexdigest(), "bytes": x.stat().st_size}
            for x in sorted(folder.glob("*.*"))
            if x.name != "manifest.json"
        ]
        manifest = folder / "manifest.json"
        subject = {"incident": incident, "agent": agent, "instance": self.known[agent].instance}
        manifest.write_text(json.dumps({**subject, "files": files}))
        return EvidenceBundle(
            folder=str(folder),
            manifest="manifest.json",
            sha256=sha256(manifest.read_bytes()).hexdigest(),
            files=len(files),
            bytes=sum(int(x["bytes"]) for x in files),
        )

    # Halts, as orders on each agent that they mean.

    def halt(self, selector: Selector, level: Level, *, reason: str, by: str, incident: str = "") -> HaltReport:
        self._ask("halt")
        number = f"HALT-{len(self.standing) + 1}"
        order = Order(levels=(level,), reason=reason, by=by, incident=incident, halt=number)
        halt = self.standing[number] = Halt(id=number, selector=selector, order=order)
        meant = [info for info in self.known.values() if self._means(selector, info)]
        for info in meant:
            orders = (*(info.hold.orders if info.hold else ()), order)
            self.known[info.agent] = replace(info, hold=Hold.of(info.agent, orders))
            if level not in self.lies and info.agent not in self.unstoppable:
                self.enforced[info.agent][level] = Enforcement.FULL
        return HaltReport(halt=halt, agents=tuple(HaltedAgent(agent=x.agent, instance=x.instance) for x in meant))

    def halts(self) -> tuple[Halt, ...]:
        self._ask("halts")
        return tuple(self.standing.values())

    def lift(self, halt: str, *, reason: str, by: str) -> tuple[HaltedAgent, ...]:
        self._ask("lift")
        gone = self.standing.pop(halt)
        for info in tuple(self.known.values()):
            orders = tuple(x for x in (info.hold.orders if info.hold else ()) if x.halt != halt)
            hold = Hold.of(info.agent, orders)
            self.known[info.agent] = replace(info, hold=hold)
            for level in gone.order.levels:
                if not hold or level not in hold.levels:
                    self.enforced[info.agent].pop(level, None)
        return ()

    def _means(self, selector: Selector, info: AgentInfo) -> bool:
        match selector.kind:
            case SelectorKind.ALL:
                return True
            case SelectorKind.TENANT:
                return info.tenant == selector.value
            case SelectorKind.TEAM:
                return info.team == selector.value
            case SelectorKind.TAG:
                return selector.value in info.tags
            case SelectorKind.TREE:
                return selector.value in (info.agent, info.parent)


class MemoryPolicies:
    """A version store; `stuck` makes restore record a version that the engine does not take up."""

    def __init__(self) -> None:
        self.texts: dict[str, list[tuple[PolicyVersion, str]]] = {}
        self.deciding: dict[str, int] = {}
        self.stuck = False

    def _at(self, policy: str, version: int) -> tuple[PolicyVersion, str]:
        for found in self.texts.get(policy, []):
            if found[0].version == version:
                return found
        raise NotFound(f"no version {version} of {policy}")

    def versions(self, policy: str) -> tuple[PolicyVersion, ...]:
        if policy not in self.texts:
            raise NotFound(f"no policy {policy}")
        return tuple(version for version, _ in self.texts[policy])

    def read(self, policy: str, version: int) -> str:
        return self._at(policy, version)[1]

    def active(self, policy: str) -> PolicyVersion:
        return self._at(policy, self.deciding.get(policy, 0))[0]

    def put(
        self, policy: str, text: str, *, author: str, reason: str, known_good: bool = False, incident: str = ""
    ) -> PolicyVersion:
        before = self.texts.setdefault(policy, [])
        old = before[-1][1] if before else ""
        if before and old == text and self.deciding.get(policy) == before[-1][0].version:
            return self.mark_known_good(policy, len(before), author=author) if known_good else before[-1][0]
        new = PolicyVersion(
            policy=policy,
            version=len(before) + 1,
            sha256=sha256(text.encode()).hexdigest(),
            author=author,
            reason=reason,
            created_ns=time.time_ns(),
            known_good=known_good,
            incident=incident,
            diff="".join(difflib.unified_diff(old.splitlines(keepends=True), text.splitlines(keepends=True))),
        )
        before.append((new, text))
        if not self.stuck:
            self.deciding[policy] = new.version
        return new

    def mark_known_good(self, policy: str, version: int, *, author: str) -> PolicyVersion:
        index = version - 1
        marked = replace(self.texts[policy][index][0], known_good=True)
        self.texts[policy][index] = (marked, self.texts[policy][index][1])
        return marked

    def restore(self, policy: str, version: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        text = self.read(policy, version)
        if self.active(policy).sha256 == sha256(text.encode()).hexdigest():
            return self.active(policy)
        return self.put(policy, text, author=author, reason=reason, incident=incident)

    def draft(self, policy: str, version: int, narrowing: Narrowing, *, attempts: Sequence[Attempt] = ()) -> Draft:
        """By the real text's own code: it needs no gateway."""
        return draft(policy, version, self.read(policy, version), narrowing, tuple(attempts))

    def decide(self, policy: str, attempt: Attempt) -> Decision:
        """By the real text's own code, and whatever anything drafts."""
        active = self.active(policy)
        text = self.read(policy, active.version)
        (said,) = draft(policy, active.version, text, Narrowing(), (attempt,)).decisions
        return said


class MemoryOrders:
    """Orders that decide as the gateway's do. `lies` makes `place` and `lift` answer and do nothing; `idle` has what
    stands decide nothing.
    """

    def __init__(self) -> None:
        self.standing: dict[str, EgressOrder] = {}
        self.endpoints: tuple[InferenceEndpoint, ...] = (
            InferenceEndpoint(host="api.cloud.test", kind=InferenceKind.CLOUD),
            InferenceEndpoint(host="gpu.internal.test", kind=InferenceKind.LOCAL, port=8000),
        )
        self.lies = False
        self.idle = False
        self.down = False

    def _ask(self) -> None:
        if self.down:
            raise Unreachable("the gateway does not answer")

    def place(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        self._ask()
        order = replace(checked(order), placed_ns=time.time_ns())
        if self.lies:
            return order, 0
        return self.standing.setdefault(order.id, order), 0

    def orders(self) -> tuple[EgressOrder, ...]:
        self._ask()
        return tuple(self.standing.values())

    def lift(self, order: str, *, reason: str, by: str) -> EgressOrder | None:
        self._ask()
        return self.standing.get(order) if self.lies else self.standing.pop(order, None)

    def held(self) -> dict[str, int]:
        self._ask()
        return {}

    def inference(self) -> tuple[InferenceEndpoint, ...]:
        self._ask()
        return self.endpoints

    def decide(self, policy: str, attempt: Attempt, *, subject: Subject | None = None) -> Decision:
        """`http` targets are `METHOD http://HOST:PORT/PATH BODY`."""
        self._ask()
        method, _, rest = ("CONNECT " + attempt.target if attempt.kind == "connect" else attempt.target).partition(" ")
        url, _, body = rest.partition(" ")
        parts = urlsplit(url if "//" in url else f"//{url}")
        asked = Asked(
            host=parts.hostname or "",
            port=parts.port or 80,
            method=method,
            path=parts.path,
            content=Content(body.encode(), parts.path) if method != "CONNECT" else None,
        )
        everybody = Subject(agent="", tenant="", team="", tags=())
        found = Orders(() if self.idle else self.standing.values(), self.endpoints).decide(subject or everybody, asked)
        said = Decision(allowed=True, rule="", reason="", policy=policy, policy_version=1)
        if not (found.denied or found.held):
            return said
        names = found.denied or found.held
        why = found.why if found.denied else "it would be held"
        return replace(
            said,
            allowed=False,
            rule=names[0].rule,
            reason=why,
            level="order",
            orders=tuple(one.id for one in names),
        )


class MemorySecrets:
    """Current values and what identifies them."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, tuple[CredentialRef, str]]] = {}
        self.next: dict[tuple[str, str], tuple[CredentialRef, str]] = {}
        self.before: dict[tuple[str, str], str] = {}
        self.begun: set[tuple[str, str]] = set()

    def current(self, agent: str, name: str) -> str:
        return self.held[agent][name][1]

    def old(self, agent: str, name: str) -> str | None:
        return self.before.get((agent, name))

    def staged(self, agent: str, name: str) -> str | None:
        found = self.next.get((agent, name))
        return found[1] if found else None

    def put(self, agent: str, ref: CredentialRef, value: str) -> None:
        self.held.setdefault(agent, {})[ref.name] = (ref, value)

    def stage(self, agent: str, ref: CredentialRef, value: str) -> None:
        self.next[agent, ref.name] = (ref, value)

    def begin(self, agent: str, name: str) -> bool:
        again = (agent, name) in self.begun
        self.begun.add((agent, name))
        return again

    def asked(self, agent: str, name: str) -> bool:
        return (agent, name) in self.begun

    def abandon(self, agent: str, name: str) -> None:
        self.next.pop((agent, name), None)
        self.begun.discard((agent, name))

    def staged_ref(self, agent: str, name: str) -> CredentialRef | None:
        found = self.next.get((agent, name))
        return found[0] if found else None

    def promote(self, agent: str, name: str, *, keep_old: bool = False) -> None:
        if staged := self.next.pop((agent, name), None):
            if not (keep_old and (agent, name) in self.before):
                self.before[agent, name] = self.current(agent, name)
            self.held[agent][name] = staged

    def discard(self, agent: str, name: str) -> None:
        self.before.pop((agent, name), None)

    def version(self, agent: str, name: str) -> str:
        return f"v-{abs(hash(self.current(agent, name)))}"

    def refs(self, agent: str) -> tuple[CredentialRef, ...]:
        return tuple(ref for ref, _ in self.held.get(agent, {}).values())


class MemoryReviews:
    """Texts by incident and form; `loses` forgets what is written."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}
        self.loses = False

    def write(self, incident: str, *, markdown: str, json: str) -> dict[str, str]:
        if not self.loses:
            self.texts[incident] = {"markdown": markdown, "json": json}
        return {"markdown": f"/reviews/{incident}.md", "json": f"/reviews/{incident}.json"}

    def read(self, incident: str) -> dict[str, str]:
        return dict(self.texts.get(incident, {}))


class MemoryVault:
    """Tokens that live until they are revoked; nothing of it is secret here."""

    def __init__(self) -> None:
        self.live: dict[str, tuple[str, dict[str, Any]]] = {}
        self.reissue = Reissue()
        self.down = False
        self.created = 0

    def _ask(self) -> None:
        if self.down:
            raise Unreachable("Vault does not answer")

    def add(self, accessor: str, value: str, meta: dict[str, str]) -> None:
        facts = {"policies": ["support"], "ttl": 60, "creation_ttl": 60, "num_uses": 0, "meta": meta}
        self.live[accessor] = (value, {**facts, "path": "auth/token/create"})

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        self._ask()
        found = self.live.get(accessor)
        return found[1] if found else None

    def token_revoke(self, accessor: str) -> None:
        self._ask()
        self.live.pop(accessor, None)

    def token_create(self, *, policies: list[str], ttl: str, meta: dict[str, str], **_limits: Any) -> tuple[str, str]:
        self._ask()
        self.created += 1
        accessor = f"acc-{self.created + 1}"
        self.add(accessor, f"value-{accessor}", meta)
        return f"value-{accessor}", accessor

    def token_find(self, meta: dict[str, str]) -> list[str]:
        self._ask()
        return [name for name, (_, facts) in self.live.items() if meta.items() <= facts["meta"].items()]

    def token_works(self, token: str) -> tuple[bool, str]:
        self._ask()
        accepted = any(value == token for value, _ in self.live.values())
        return accepted, "200" if accepted else "403"

    def leases(self, prefix: str) -> list[str]:
        self._ask()
        return []

    def leases_revoke(self, prefix: str) -> None:
        self._ask()

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        return self.token_works(token)


class MemoryVaultRecords:
    """What `MemoryVault` wrote down: nothing but its own tokens; `audited` are what an audit log would have."""

    def __init__(self, vault: MemoryVault) -> None:
        self.vault = vault
        self.audited: list[Audited] = []

    def audit(self) -> AuditLog | None:
        self.vault._ask()
        return AuditLog(entries=tuple(self.audited))

    def audit_hash(self, text: str) -> str:
        return f"hmac:{text}"

    def accessors(self) -> list[str]:
        self.vault._ask()
        return list(self.vault.live)

    def may(self, accessor: str, paths: Sequence[str]) -> dict[str, bool]:
        return dict.fromkeys(paths, accessor in self.vault.live)

    def lease(self, lease: str) -> dict[str, Any] | None:
        self.vault._ask()
        return None

    def lease_revoke(self, lease: str) -> None:
        self.vault._ask()

    def secret_ids(self, role: str) -> list[str]:
        return []

    def secret_id_destroy(self, role: str, accessor: str) -> None:
        self.vault._ask()


class MemoryDocuments:
    """Documents; `loses` makes a write vanish."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.loses = False

    def write(self, incident: str, name: str, text: str) -> str:
        if not self.loses:
            self.texts[incident, name] = text
        return f"{incident}/{name}.json"

    def read(self, incident: str, name: str) -> str:
        return self.texts.get((incident, name), "")


class MemoryTickets:
    """Tickets; `loses` makes a write vanish, `tracks` keeps an issue as well, `down` makes its tracker silent."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}
        self.issues: dict[str, str] = {}
        self.loses = self.tracks = self.down = False

    def write(self, incident: str, *, markdown: str, jira: str) -> dict[str, str]:
        if not self.loses:
            self.texts[incident] = {"markdown": markdown, "jira": jira}
        where = {"markdown": f"{incident}.md", "jira": f"{incident}.json"}
        if not self.tracks:
            return where
        if self.down:
            raise Unreachable("the tracker does not answer")
        self.issues[incident] = request_words(json.loads(jira))
        return where | {"tracker": "SEC-1"}

    def read(self, incident: str) -> dict[str, str]:
        return self.texts.get(incident, {})

    def tracked(self, incident: str) -> str | None:
        if self.down:
            raise Unreachable("the tracker does not answer")
        return self.issues.get(incident)


class MemoryWorld:
    """All of it, with one agent that runs under a widened policy and holds one Vault token, or `held`."""

    def __init__(
        self, folder: Path, *, agent: str = "a", secrets: Any = None, held: Sequence[tuple[CredentialRef, str]] = ()
    ) -> None:
        self.policies, self.secrets, self.tickets = MemoryPolicies(), secrets or MemorySecrets(), MemoryTickets()
        self.core = MemoryCore(folder, self.policies, self.secrets)
        self.reviews = MemoryReviews()
        self.telemetry, self.documents = self.core.telemetry, MemoryDocuments()
        self.policies.put("support", GOOD, author="soc", reason="reviewed", known_good=True)
        self.policies.put("support", WIDE, author="dev", reason="quick fix")
        held = held or ((TOKEN, "hvs.never-in-a-record-0123456789"),)
        for ref, value in held:
            self.secrets.put(agent, ref, value)
        self.core.launch(
            LaunchSpec(
                agent=agent,
                command=("python3", "agent.py", "--goal", "answer tickets"),
                policy="support",
                policy_version=2,
                policy_text=WIDE,
                credentials=tuple(ref for ref, _ in held),
                tenant="acme",
                team="support",
            )
        )
        self.orders = self.core.orders = MemoryOrders()
        self.vault = MemoryVault()
        self.vault.add("acc-1", "hvs.never-in-a-record-0123456789", {})
        self.world = World(
            core=self.core,
            policies=self.policies,
            secrets=self.secrets,
            tickets=self.tickets,
            orders_or_none=self.orders,
            documents_or_none=self.documents,
            vault_or_none=self.vault,
            vault_records_or_none=MemoryVaultRecords(self.vault),
            telemetry_or_none=self.core.telemetry,
            reviews_or_none=self.reviews,
        )
