"""Make one attempt as an ordinary process of the host, with nothing around it: it must come through.

Arguments: an attempt's file, a JSON world. What is attacked there is the test's own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FDS = sorted(int(name) for name in os.listdir("/proc/self/fd"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import attacker

world = json.loads(sys.argv[2])
world["fds"] = [fd for fd in FDS if os.path.exists(f"/proc/self/fd/{fd}")]
answer = attacker.run(Path(sys.argv[1]), world)
print(json.dumps(answer), flush=True)
os._exit(0)
