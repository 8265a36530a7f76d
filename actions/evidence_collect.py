"""Collect evidence of an agent before anything that would destroy it, and hash it all again to prove it is whole."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.errors import Refused
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "EvidenceParams", "differences", "misattributed"]

_MOST_MANIFEST = 16 << 20


class EvidenceParams(Params):
    """The agent, and the instance that is meant; empty: whichever is there."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def _hash(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def differences(folder: Path, manifest: Path, expected: str) -> tuple[int, list[str]]:
    """How many files were hashed again and found as recorded, and what is wrong, in words.

    The manifest must hash to `expected`; every file it lists must be inside the folder and hash to what it says; and no
    file may be there that it does not list.
    """
    try:
        if manifest.stat().st_size > _MOST_MANIFEST:
            return 0, ["the manifest is too large"]
        raw = manifest.read_bytes()
        if sha256(raw).hexdigest() != expected:
            return 0, ["the manifest is not the one that was sealed"]
        listed = _listed(json.loads(raw))
    except OSError as error:
        return 0, [f"the manifest cannot be read here: {error.strerror}"]
    except (ValueError, KeyError, TypeError):
        return 0, ["the manifest is not one that this version can read"]
    root, wrong, good = folder.resolve(), [], 0
    for name, digest in listed.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            wrong.append(f"{name[:120]!a} leads out of the folder")
            continue
        try:
            same = _hash(path) == digest
        except OSError as error:
            wrong.append(f"{name[:120]!a}: {error.strerror}")
            continue
        good += same
        if not same:
            wrong.append(f"{name[:120]!a} has changed")
    there = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}
    wrong += [f"{name[:120]!a} is not in the manifest" for name in sorted(there - set(listed) - {manifest.name})]
    return good, wrong


def _listed(manifest: Any) -> dict[str, str]:
    return {str(entry["path"]): str(entry["sha256"]) for entry in manifest["files"]}


def _plan(ctx: Context, params: EvidenceParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    return Plan(
        changes=(f"+ evidence of {params.agent} instance {info.instance}, kept for good",),
        checks=(f"{params.agent} is {info.state.value}; it is not thawed for this",),
    )


def _capture(ctx: Context, params: EvidenceParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    if params.instance and info.instance != params.instance:
        raise Refused(
            f"no evidence of instance {params.instance} can be had: {params.agent} is instance {info.instance} now"
        )
    return {"instance": info.instance}


def _apply(ctx: Context, params: EvidenceParams, captured: Record) -> Record:
    bundle = ctx.world.core.evidence(params.agent, incident=ctx.incident.id)
    return {
        "instance": captured["instance"],
        "folder": bundle.folder,
        "manifest": bundle.manifest,
        "sha256": bundle.sha256,
        "files": bundle.files,
        "bytes": bundle.bytes,
        "truncated": list(bundle.truncated),
        "elapsed_ms": round(bundle.elapsed_ms, 3),
    }


def misattributed(manifest: Path, **subject: str) -> list[str]:
    """What a manifest that was found sound says of whom it is about, where that is somebody else."""
    said = json.loads(manifest.read_bytes())
    return [
        f"it is evidence of {name} {str(said.get(name))[:120]!a}, not {meant}"
        for name, meant in subject.items()
        if said.get(name) != meant
    ]


def _verify(ctx: Context, params: EvidenceParams, _captured: Record, outcome: Record) -> Verification:
    folder = Path(outcome["folder"])
    manifest = folder / outcome["manifest"]
    good, wrong = differences(folder, manifest, outcome["sha256"])
    if good and not wrong:
        wrong = misattributed(manifest, incident=ctx.incident.id, agent=params.agent, instance=str(outcome["instance"]))
    if not wrong and good != outcome["files"]:
        wrong.append(f"{good} files are listed, {outcome['files']} were collected")
    cut = f"; cut short: {', '.join(outcome['truncated'])}" if outcome["truncated"] else ""
    if wrong or not good:
        return Verification(
            verified=False,
            enforcement=Enforcement.PARTIAL if good else Enforcement.NONE,
            proof="; ".join(wrong[:10]) or "no file was collected",
        )
    return Verification(
        verified=True,
        enforcement=Enforcement.PARTIAL if cut else Enforcement.FULL,
        proof=f"{good} files ({outcome['bytes']:,} bytes) hashed again, all as in the manifest "
        f"{outcome['sha256'][:12]}{cut}",
        details={"files": good},
    )


ACTION = Action(
    id="evidence.collect",
    summary="Collect a bounded, redacted, hashed snapshot of the agent.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.IRREVERSIBLE,  # evidence is kept: nothing takes it back
    needs=frozenset({"core:evidence", "core:agent"}),
    scope="reads one agent's processes and logs; writes one folder; no secret's value",
    openc2="copy",
    params=EvidenceParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
