"""Preserve the agent's transcripts while it stands still: hashed, bounded, and with its secrets taken out.

What it was told stands nowhere else: a prompt leaves no trace in the kernel. The copies that may be shown are hashed
again and read for the instructions that the ticket quotes; the agent may have written anything into them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions.evidence_collect import differences, misattributed
from clawback.errors import Refused
from clawback.model import Enforcement, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "TranscriptsParams", "prompts"]

_MOST_PROMPTS = 12
_LONGEST = 400
_MOST_BYTES = 512 << 10
_INDEX = "transcripts.json"
_ASKING = frozenset({"user", "system", "developer"})


class TranscriptsParams(Params):
    """The agent, and the instance that is meant; empty: whichever is there."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def prompts(text: str) -> list[str]:
    """What an agent was told, by its transcript: of each JSON line whose role asks, the text, bounded; newest last.

    Forms: `{"role", "content"}`, and that as `message` of a line; `content` is text, or a list of `{"type": "text",
    "text"}`. Every other line is passed over.
    """
    found: list[str] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("message"), dict):
            entry = entry["message"]
        if not isinstance(entry, dict) or entry.get("role") not in _ASKING:
            continue
        if said := _said(entry.get("content")):
            found.append(plain(said, _LONGEST))
    return list(dict.fromkeys(found))


def _said(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return " ".join(part for part in parts if isinstance(part, str))
    return ""


def _plan(ctx: Context, params: TranscriptsParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    return Plan(
        changes=tuple(f"+ copies of {pattern} in {info.instance}" for pattern in ctx.world.transcripts),
        checks=(f"{params.agent} is {info.state.value}; it is not thawed for this",),
    )


def _capture(ctx: Context, params: TranscriptsParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    if params.instance and info.instance != params.instance:
        raise Refused(
            f"no transcript of instance {params.instance} can be had: {params.agent} is instance {info.instance} now"
        )
    return {"instance": info.instance}


def _apply(ctx: Context, params: TranscriptsParams, captured: Record) -> Record:
    if not ctx.world.transcripts:
        return {"instance": captured["instance"], "patterns": 0, "files": 0, "prompts": []}
    bundle = ctx.world.core.evidence(params.agent, incident=ctx.incident.id, transcripts=ctx.world.transcripts)
    folder = Path(bundle.folder)
    return {
        "instance": captured["instance"],
        "patterns": len(ctx.world.transcripts),
        "folder": bundle.folder,
        "manifest": bundle.manifest,
        "sha256": bundle.sha256,
        "files": bundle.files,
        "bytes": bundle.bytes,
        "truncated": list(bundle.truncated[:20]),
        "transcripts": len(_shown(folder)),
        "prompts": _told(folder),
    }


def _told(folder: Path) -> list[str]:
    found = [told for name in _shown(folder) for told in prompts(_read(folder / name))]
    return list(dict.fromkeys(found))[-_MOST_PROMPTS:]


def _shown(folder: Path) -> list[str]:
    """The copies that may be shown, oldest first, so that the newest prompts come last."""
    return sorted((path.name for path in folder.glob("transcript-*.jsonl")), reverse=True)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "backslashreplace")


def _otherwise(folder: Path, outcome: Record) -> list[str]:
    """What the bundle, found sound, says otherwise than the record, in words."""
    wrong: list[str] = []
    shown = _shown(folder)
    if len(shown) != outcome["transcripts"]:
        wrong.append(f"{len(shown)} transcripts are there, {outcome['transcripts']} were collected")
    if _told(folder) != outcome["prompts"]:
        wrong.append("the instructions on record are not those in the transcripts")
    if not outcome["truncated"] and _indexed(folder) != sorted(shown):
        wrong.append("the index of transcripts is not there, or names others: nobody looked for these")
    return wrong


def _indexed(folder: Path) -> list[str] | None:
    """The copies that the index names; None where there is no index, which is written even if no file matched."""
    try:
        return sorted(str(one["shown"]) for one in json.loads((folder / _INDEX).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _verify(ctx: Context, params: TranscriptsParams, captured: Record, outcome: Record) -> Verification:
    if not outcome["patterns"]:
        meant = bool(ctx.world.transcripts)
        return Verification(
            verified=not meant,
            enforcement=Enforcement.NONE,
            proof=f"no transcripts {'were' if meant else 'are'} looked for: `evidence.transcripts`",
        )
    folder = Path(outcome["folder"])
    manifest = folder / outcome["manifest"]
    good, wrong = differences(folder, manifest, outcome["sha256"])
    if good and not wrong:
        wrong = misattributed(manifest, incident=ctx.incident.id, agent=params.agent, instance=captured["instance"])
        wrong += _otherwise(folder, outcome)
    if not wrong and good != outcome["files"]:
        wrong.append(f"{good} files are listed, {outcome['files']} were collected")
    if wrong or not good:
        return Verification(
            verified=False,
            enforcement=Enforcement.PARTIAL if good else Enforcement.NONE,
            proof="; ".join(wrong[:10]) or "nothing was collected",
        )
    count, cut = outcome["transcripts"], outcome["truncated"]
    none = "none could be read" if cut else "no file matched: nothing was to be kept"
    return Verification(
        verified=True,
        enforcement=Enforcement.NONE if not count else Enforcement.PARTIAL if cut else Enforcement.FULL,
        proof=(f"{count} transcripts kept and hashed again" if count else none)
        + f", manifest {outcome['sha256'][:12]}; {len(outcome['prompts'])} instructions in them"
        + (f"; cut short: {', '.join(plain(one, 120) for one in cut[:5])}" if cut else ""),
    )


ACTION = Action(
    id="transcripts.preserve",
    summary="Preserve the agent's transcripts, hashed and with its secrets taken out.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.IRREVERSIBLE,  # evidence is kept: nothing takes it back
    needs=frozenset({"core:evidence", "core:transcripts", "core:agent"}),
    scope="reads files of one agent's sandbox that match the settings' patterns; writes one folder",
    openc2="copy",
    params=TranscriptsParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
