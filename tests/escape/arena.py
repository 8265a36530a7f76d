"""A core and a gateway of one's own, a neighbour agent, a process of the host, and sandboxes with attackers in them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import attacker
import sinks
import watch

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.gateway.client import GatewayClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.errors import ClawbackError
from clawback.model import AgentState, Attempt, LaunchSpec, Level

PYTHON = "/usr/bin/python3"
LEVELS = {"isolate": Level.ISOLATE, "restrict": Level.RESTRICT, "seal": Level.SEAL}
MOST_PROCESSES, MOST_MEMORY = 300, 256 << 20
SERVE = """
import json, sys
from pathlib import Path
from clawback.enforcement.{part}.main import serve
given = json.loads(sys.argv[1])
state = Path(given.pop("state"))
for name in ("canaries", "allow_private"):
    if name in given:
        given[name] = tuple(given[name])
serve(state, **given)
"""


def attempts() -> dict[str, Path]:
    """Every attempt by its name, in order."""
    found = sorted((HERE / "attempts").glob("*.py"), key=lambda path: int(path.name.partition("_")[0]))
    return {path.stem: path for path in found}


def until(look, *, seconds: float = 15.0, what: str = "it did not come true") -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)
    return found


def policy(profile: str, port: int, *, memory: int = MOST_MEMORY) -> str:
    writing = "read-write" if profile == "default" else "read-only"
    return f"""\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {{name: escape}}
spec:
  isolation: {{network: restricted, filesystem: {writing}, syscalls: {profile}}}
  resources: {{maxMemory: {memory >> 20}Mi, maxProcesses: {MOST_PROCESSES}}}
---
networkPolicy:
  name: escape
  egress:
    allow:
      - {{domain: good.test, ports: [{port}], methods: [GET, POST], paths: ["/open", "/open/**"]}}
      - {{domain: rebound.test}}
"""


class Arena:
    """`watch` sees everything outside; `launch` makes an attackers' sandbox."""

    def __init__(self) -> None:
        self.root = os.geteuid() == 0
        self.home = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self.home.chmod(0o755)
        self.state = self.home / "s"
        self.group = f"clawback-escape-{secrets.token_hex(4)}"
        self.secret = secrets.token_hex(16)
        self.token = secrets.token_hex(6)
        self.sinks = sinks.Sinks()
        self.watch = watch.Watch()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._number = 0
        self.programs = self.home / "programs"
        shutil.copytree(HERE, self.programs, ignore=shutil.ignore_patterns("__pycache__", "test_*", "conftest.py"))
        for name in ("outside", "shown"):
            (self.home / name).mkdir(mode=0o755)
        self.host_file, self.host_secret = self.home / "outside" / "file", self.home / "outside" / "secret"
        for path in (self.host_file, self.host_secret):
            path.write_text(self.secret)
            path.chmod(0o666)

    def start(self) -> None:
        self.core = CoreClient(self.state / "run" / "core.sock", timeout=30.0)
        self.gateway = GatewayClient(self.state / "run" / "gateway.sock")
        gateway = {"resolve": sinks.NAMES, "allow_private": ["127.0.0.2/32"], "uid": 1_899_998 if self.root else None}
        base = unclaimed_uid_base()
        self._serve("gateway", gateway)
        self._serve("core", {"cgroup": self.group, "uid_base": base, "canaries": [], "heartbeat_seconds": 0.5})
        until(self._up, what="the core and the gateway did not come up")
        text = policy("default", self.sinks.good)
        self.gateway.put("escape", text, author="tests", reason="tests", known_good=True)
        self.victim = self._victim()
        self.neighbour, said = self._neighbour()
        self.victims = [self.victim, said]
        self._show_sockets()
        self._look()

    def _serve(self, part: str, options: dict[str, Any]) -> None:
        given = json.dumps({"state": str(self.state), **options})
        log = (self.home / f"{part}.log").open("wb")
        with log:
            one = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(part=part), given],
                stdout=log,
                stderr=log,
                env={**os.environ, "CLAWBACK_ARENA_SECRET": self.secret},
            )
        self._processes.append(one)

    def _up(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError("".join(log.read_text()[-2000:] for log in self.home.glob("*.log")))
        with contextlib.suppress(ClawbackError):
            self.core.health()
            return bool(self.gateway.health()["status"] == "ok")
        return False

    def _victim(self) -> dict[str, Any]:
        """A process of the host, with everything that can be got at."""
        process = subprocess.Popen(
            [sys.executable, str(self.programs / "victim.py"), self.token],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "VICTIM_SECRET": self.secret},
        )
        self._processes.append(process)
        assert process.stdout
        return dict(json.loads(process.stdout.readline()))

    def fresh_victim(self) -> dict[str, Any]:
        """Another, for who has just killed one."""
        self._sweep(self.victim)
        self.victim = self._victim()
        self.victims[0] = self.victim
        return self.victim

    def _spec(
        self, name: str, command: tuple[str, ...], work: Path, profile: str, memory: int = MOST_MEMORY
    ) -> LaunchSpec:
        return LaunchSpec(
            agent=name,
            command=command,
            policy="escape",
            policy_version=1,
            policy_text=policy(profile, self.sinks.good, memory=memory),
            environment={"VICTIM_SECRET": f"neighbour-{self.secret}"} if name == "neighbour" else {},
            readable=(str(self.programs), str(self.home / "shown")),
            writable=(str(work),),
        )

    def _neighbour(self) -> tuple[Any, dict[str, Any]]:
        """Another agent, with the same."""
        work = self._work("neighbour")
        (work / "private").write_text(self.secret)
        command = (PYTHON, str(self.programs / "victim.py"), secrets.token_hex(6))
        self.core.launch(self._spec("neighbour", command, work, "default"))
        box = self.box("neighbour")
        output = Path(box.folder, "output.log")
        line = until(lambda: next((one for one in output.read_text().splitlines() if one.startswith("{")), None))
        return box, dict(json.loads(line))

    def box(self, agent: str) -> Any:
        return next(one for one in inventory.read_all(self.state)[0] if one.agent == agent)

    def _work(self, name: str) -> Path:
        folder = self.home / f"work-{name}"
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def _show_sockets(self) -> None:
        """Under a second name in a folder that every agent sees: a careless list is no reason to be talked to."""
        run = self.state / "run"
        places = {"core": run / "core.sock", "fds": run / "core-fds.sock", "gateway": run / "gateway.sock"}
        places |= {"attach": run / "gateway-attach.sock", "shim": Path(self.neighbour.folder) / "shim.sock"}
        self.sockets: dict[str, list[str]] = {}
        for name, path in places.items():
            shown = self.home / "shown" / path.name
            os.link(path, shown)
            self.sockets[name] = [str(shown), str(path)]

    def _look(self) -> None:
        watch.the_host(self.watch)
        looks = self.watch
        outside = self.home / "outside"
        looks.add("the host's files", lambda: {path.name: watch.text(path) for path in sorted(outside.iterdir())})
        looks.add("the neighbour's file", lambda: watch.text(self.home / "work-neighbour" / "private"))
        looks.add("what nothing may reach", lambda: list(self.sinks.hits))
        looks.add("mounts of the host", lambda: str(self.home) in watch.text("/proc/self/mountinfo"))
        for name, process in zip(("gateway", "core"), self._processes, strict=False):
            looks.add(name, lambda pid=process.pid: watch.ticks(pid))
        looks.add("the victim", lambda: watch.ticks(self.victim["pid"]))
        for name, box in (("the neighbour", self.neighbour.pid), ("its shim", self.neighbour.shim_pid)):
            looks.add(name, lambda pid=box: watch.ticks(pid))
        looks.add("the victim's memory", lambda: watch.memory(self.victim["pid"], self.victim["address"]))

    def world(self, work: Path) -> dict[str, Any]:
        """What an attacker knows: where everything is, and no secret."""
        return {
            "token": self.token,
            "work": str(work),
            "pids": [self._processes[1].pid, self._processes[0].pid, self.victim["pid"], self.neighbour.pid],
            "seen": [],
            "address": self.victim["address"],
            "victims": self.victims,
            "host_file": str(self.host_file),
            "host_secret": str(self.host_secret),
            "neighbour_files": [str(self.home / "work-neighbour" / "private"), "/run/secrets/token"],
            "race": str(self.host_secret),
            "sockets": self.sockets,
            "tcp": self.sinks.tcp,
            "udp": self.sinks.udp,
            "dns": [["127.0.0.1", self.sinks.udp[0][1]], ["8.8.8.8", 53], ["fd00:ec2::253", 53]],
            "gateway": ["127.0.0.1", 3128],
            "good": ["good.test", self.sinks.good],
            "forbidden": self.sinks.forbidden,
            "forbidden_there": self.sinks.forbidden_there,
            "system": ["/usr/bin/env", "/etc/passwd", "/etc/ld.so.preload", "/usr/lib/escaped", "/escaped", "/dev/x"],
            "memory_folders": ["/tmp", "/dev/shm", "/run", "/var/tmp", "/dev"],
            "most_processes": MOST_PROCESSES,
            "most_memory": MOST_MEMORY,
        }

    def unconfined(self, name: str) -> dict[str, Any]:
        """The same program where nothing stops it: on the host, as an ordinary user there, or in a cell of its own."""
        path = self.programs / "attempts" / f"{name}.py"
        kind = attacker.front_matter(path)["unconfined"]
        if watch.ticks(self.victim["pid"]) == "gone":
            self.fresh_victim()
        for file in (self.host_file, self.host_secret):
            file.write_text(self.secret)
        self.watch.changes()
        work = self._work(f"loose-{name}")
        system = work / "system"
        system.touch()
        world = self.world(work)
        victim = [self.victim["pid"]]
        world |= {"pids": victim, "seen": victim, "gateway": ["127.0.0.1", self.sinks.proxy], "system": [str(system)]}
        world |= {"neighbour_files": [], "most_processes": 50}
        program = self.programs / ("cell.py" if kind == "cell" else "loose.py")
        left_open = os.open("/", os.O_RDONLY)
        ordinary = {"user": 65_534, "group": 65_534, "extra_groups": []} if kind == "user" else {}
        try:
            done = subprocess.run(
                [PYTHON, str(program), str(path), json.dumps(world)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                pass_fds=(left_open,),
                **ordinary,
            )
        finally:
            os.close(left_open)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        answer = json.loads(lines[-1]) if lines else {"outcome": "silent", "sentence": done.stderr[-300:]}
        shutil.rmtree(work)
        return {**answer, "seen": self.watch.changes()}

    def launch(self, profile: str, names: list[str]) -> Sandbox:
        self._number += 1
        agent = f"attacker-{self._number}"
        work = self._work(agent)
        world = self.world(work)
        world["pids"] = [1, *world["pids"]]
        (work / "world.json").write_text(json.dumps(world))
        for name in names:
            for end in ("go", "said"):
                os.mkfifo(work / f"{name}.{end}")
                (work / f"{name}.{end}").chmod(0o666)
        command = (PYTHON, "-u", str(self.programs / "driver.py"), str(self.programs / "attempts"))
        command += (str(work / "world.json"), *names)
        sandbox = Sandbox(self, agent, work, names)
        memory = MOST_MEMORY if len(names) == 1 else 4 * MOST_MEMORY
        info = self.core.launch(self._spec(agent, command, work, profile, memory))
        sandbox.box = self.box(agent)
        sandbox.layers = dict(info.layers)
        sandbox.ready()
        return sandbox

    def close(self) -> None:
        records, _ = inventory.read_all(self.state)
        for record in records:
            for path in (record.cgroup, record.controllers.get("freezer", "")):
                if path and Path(path, "cgroup.freeze").exists():
                    Path(path, "cgroup.freeze").write_text("0")
            if inventory.is_process(record.pid, record.start_ticks):
                os.kill(record.pid, signal.SIGKILL)
        for record in records:
            until(lambda record=record: inventory.state(record) is not AgentState.RUNNING)
            until(lambda record=record: not inventory.is_process(record.shim_pid, record.shim_start_ticks))
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(8)
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        for record in records:
            inventory.remove(record)
        if hasattr(self, "victim"):
            self._sweep(self.victim)
        found = cgroups.discover()
        for root in (found.unified, *found.v1.values()):
            group = Path(root, self.group) if root else None
            if group and group.is_dir():
                until(lambda group=group: _rmdir(group), what=f"{group} is not empty")
        until(lambda: cgroups.remove_parent(found, self.group), what="a shim is left")
        self.sinks.close()
        shutil.rmtree(self.home)

    @staticmethod
    def _sweep(victim: dict[str, Any]) -> None:
        """What a killed victim leaves in the host's namespaces."""
        Path("/dev/shm", f"clawback-{victim['token']}").unlink(missing_ok=True)
        ctypes.CDLL(None).mq_unlink(f"/clawback-{victim['token']}".encode())


def _rmdir(group: Path) -> bool:
    try:
        for leaf in group.iterdir():
            if leaf.is_dir():
                leaf.rmdir()
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Sandbox:
    """One agent whose children are attempts."""

    def __init__(self, arena: Arena, agent: str, work: Path, names: list[str]) -> None:
        self.arena = arena
        self.agent = agent
        self.work = work
        self.names = names
        self.box: Any = None
        self.level = "before"
        self.layers: dict[str, str] = {}
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        # Both ends kept open: neither side ever waits for the other to open its own.
        self._go, self._said, self._rest = {}, {}, {}
        for name in names:
            self._go[name] = self._said[name] = -1
        self._flags = flags

    def ready(self) -> None:
        """Wait until each child stands before its attempt."""
        for name in self.names:
            self._go[name] = os.open(self.work / f"{name}.go", self._flags)
            self._said[name] = os.open(self.work / f"{name}.said", self._flags)
            self._rest[name] = b""
        for name in self.names:
            if self._line(name, 20.0) != b"ready":
                raise RuntimeError(f"{name} is not ready: {self.output()}")

    def output(self) -> str:
        return watch.text(Path(self.box.folder, "output.log"))[-2000:]

    def _line(self, name: str, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        while b"\n" not in self._rest[name]:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._said[name]], [], [], min(left, 0.25))[0]:
                if left <= 0 or watch.ticks(self.box.pid) == "gone":
                    return b""
                continue
            self._rest[name] += os.read(self._said[name], 65536)
        line, _, self._rest[name] = self._rest[name].partition(b"\n")
        return line

    def contain(self, level: str) -> dict[str, Any]:
        self.level = level
        result = self.arena.core.contain(self.agent, LEVELS[level], reason="tests", by="tests")
        return {
            "enforcement": result.enforcement.value,
            "observed": result.observed,
            "missing": list(result.missing),
        }

    def attempt(self, name: str, *, seconds: float) -> dict[str, Any]:
        """One attempt: what it says, and what is seen of it from outside."""
        about = attacker.front_matter(self.arena.programs / "attempts" / f"{name}.py")
        seen: list[str] = []
        looking = None
        if doing := about.get("host does"):
            target = {"look from inside": self._look_inside, "start another": self._start_another}[doing]
            looking = threading.Thread(target=target, args=(seen,))
            looking.start()
        os.write(self._go[name], b"x")
        line = self._line(name, seconds)
        if looking:
            looking.join()
        answer = {"outcome": "silent", "sentence": "not a word in time"}
        if line:
            with contextlib.suppress(ValueError):
                answer = dict(json.loads(line))
        seen += self.arena.watch.changes()
        if self.arena.secret in str(answer) or str(self.arena.secret.encode()) in str(answer):
            seen.append("it knows a secret of the host's")
        return {**answer, "sentence": str(answer.get("sentence", ""))[:500], "seen": seen}

    def _look_inside(self, seen: list[str]) -> None:
        """Look as a responder does, while the agent disturbs it. What is allowed must not be reported denied."""
        if self.level in ("restrict", "seal"):
            seen = []  # there opens are refused indeed
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            try:
                answers = self.arena.core.attempt(
                    self.agent,
                    [Attempt(kind="open", target="/usr/bin/env"), Attempt(kind="syscall", target="getpid")],
                )
            except ClawbackError:
                continue  # that nothing could be seen is said, and proves nothing
            seen += [
                f"the core says of {one.attempt.kind} {one.attempt.target}: denied, {one.detail}"
                for one in answers
                if one.denied
            ]

    def _start_another(self, seen: list[str]) -> None:
        """Start agents that are shown a folder which this one may write to: each prints what it finds there."""
        arena, lead = self.arena, self.work / "next" / "lead"
        outside = arena.host_secret.parent
        owner = outside.stat().st_uid
        until(lambda: os.path.lexists(lead), what="the attempt made no folder")
        end, number, found, refused = time.monotonic() + 1.2, 0, [], 0
        while time.monotonic() < end:
            number += 1
            name = f"{self.agent}-next-{number}"
            command = ("/bin/cat", str(lead / arena.host_secret.name))
            spec = arena._spec(name, command, lead, "default")
            try:
                arena.core.launch(spec)
            except ClawbackError:
                refused += 1
                continue
            box = arena.box(name)
            until(lambda box=box: watch.ticks(box.shim_pid) == "gone")
            found.append(watch.text(Path(box.folder, "output.log")))
        if any(arena.secret in text for text in found):
            seen.append("the next agent was shown the host's file")
        if outside.stat().st_uid != owner:
            seen.append("the next agent was given the host's folder")
        if not refused or not any("its own" in text for text in found):
            seen.append(f"no race: {refused} launches refused, {len(found)} made")

    def judge(self) -> list[str]:
        """At its end: nothing of it is anywhere else, and what it printed is bounded."""
        seen = []
        if self.arena.root and self.box.cgroup:
            seen += [f"outside its group: {one}" for one in watch.strangers(self.box.uid, Path(self.box.cgroup).name)]
        output = Path(self.box.folder, "output.log")
        if output.exists() and output.stat().st_size > 1 << 20:
            seen.append(f"{output.stat().st_size} bytes of output were kept")
        telemetry = sum(path.stat().st_size for path in (self.arena.state / "telemetry").glob("*.jsonl"))
        if telemetry > 32 << 20:
            seen.append(f"{telemetry} bytes of telemetry were written")
        return seen

    def end(self) -> list[str]:
        """Stop it, and look whether anything lives on."""
        self.arena.core.contain(self.agent, Level.STOP, reason="tests", by="tests")
        for fd in (*self._go.values(), *self._said.values()):
            if fd >= 0:
                os.close(fd)
        until(lambda: watch.ticks(self.box.pid) == "gone", what="the sandbox did not end")
        seen = []
        if self.arena.root:
            with contextlib.suppress(TimeoutError):
                until(lambda: not watch.strangers(self.box.uid, "\0"), seconds=3)
            seen = [f"lives on after stop: {one}" for one in watch.strangers(self.box.uid, "\0")]
        shutil.rmtree(self.work, ignore_errors=True)
        return seen


@contextlib.contextmanager
def arena() -> Iterator[Arena]:
    one = Arena()
    try:
        one.start()
        yield one
    finally:
        one.close()
