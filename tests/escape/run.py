"""The whole matrix: each attempt in each kind of sandbox, at each level of the ladder. Prints JSON, one line a result.

Arguments: a JSON object with `cells`, a list of [profile, level], and `names`, the attempts (all without it).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import arena as places
import attacker

SECONDS = {"before": 8.0, "isolate": 8.0, "restrict": 40.0, "seal": 8.0}


def wanted(about: dict[str, str], level: str, layers: dict[str, str]) -> str:
    """Why an attempt is not made here; empty where it is."""
    if "levels" in about and level not in about["levels"]:
        return "not at this level"
    needs = about.get("needs", "")
    if needs == "x86_64" and places.attacker.platform.machine() != "x86_64":
        return "for x86-64"
    if needs == "memory limit" and layers.get("memory") != "full":
        return "the memory limit is not enforced here, and the launch said so"
    return ""


def say(name: str, profile: str, level: str, **more: Any) -> None:
    print(json.dumps({"name": name, "profile": profile, "level": level, **more}), flush=True)


def batch(arena: places.Arena, profile: str, level: str, names: list[str]) -> None:
    """One sandbox and all that is tried in it, one after the other."""
    began = time.monotonic()
    box = arena.launch(profile, names)
    try:
        result = box.contain(level) if level != "before" else {"enforcement": "full", "missing": []}
        frozen = bool(box.box.cgroup) and "frozen 1" in (Path(box.box.cgroup) / "cgroup.events").read_text()
        arena.watch.changes()
        for name in names:
            about = attacker.front_matter(places.HERE / "attempts" / f"{name}.py")
            if reason := wanted(about, level, box.layers):
                say(name, profile, level, outcome="not-here", sentence=reason, seen=[], result=result)
            elif frozen:
                say(name, profile, level, outcome="refused", sentence="left frozen", seen=[], result=result)
            else:
                started = time.monotonic()
                answer = box.attempt(name, seconds=SECONDS[level])
                answer["seconds"] = round(time.monotonic() - started, 2)
                answer["seen"] += box.judge() if about.get("alone") or name == names[-1] else []
                say(name, profile, level, **answer, result=result)
    finally:
        left = box.end()
    say("*", profile, level, outcome="ended", sentence=f"{time.monotonic() - began:.1f} s", seen=left, result=result)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    every = places.attempts()
    names = given.get("names") or list(every)
    abouts = {name: attacker.front_matter(every[name]) for name in names}
    with places.arena() as arena:
        for profile, level in given.get("cells") or [["default", "before"]]:
            if level == "unconfined":
                for name in names:
                    if not abouts[name]["unconfined"].startswith("none"):
                        say(name, profile, level, **arena.unconfined(name))
                continue
            here = [name for name in names if level in abouts[name].get("levels", level)]
            together = [name for name in here if abouts[name].get("alone") != "yes"]
            if together:
                batch(arena, profile, level, together)
            for name in here:
                if name not in together:
                    batch(arena, profile, level, [name])


if __name__ == "__main__":
    main()
