"""Compile the shim beside the sources: `python -m clawback.enforcement.native`."""

from __future__ import annotations

import sys

from clawback.enforcement.native.build import HERE, NAME, compile_into

problem = compile_into(HERE)
if problem:
    sys.exit(f"error: no {NAME}: {problem}\nhint: sandboxes are made in Python then, which takes longer")
