"""`policy list|diff|restore|check|mark`: versions of policies, by way of the gateway."""

from __future__ import annotations

import datetime as dt
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.agents import operator
from clawback.cli.app import app, settings
from clawback.cli.output import console, fail, print_json, safe, table
from clawback.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from clawback.enforcement.gateway.client import GatewayClient
    from clawback.enforcement.policy.types import PolicyFile

__all__: list[str] = []

policies = typer.Typer(no_args_is_help=True, help="Policy versions.")
app.add_typer(policies, name="policy")

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_POLICY = Annotated[str, typer.Argument(help="the policy's name")]


def _gateway() -> GatewayClient:
    from clawback.enforcement.gateway.client import GatewayClient

    return GatewayClient(settings().gateway_socket)


@policies.command("list")
def list_versions(policy: _POLICY, *, as_json: _JSON = False) -> None:
    """List a policy's versions, oldest first; `*` marks the active one."""
    gateway = _gateway()
    found = gateway.versions(policy)
    active = gateway.active(policy).version
    if as_json:
        print_json({"active": active, "versions": found})
        return
    table(
        ("", "version", "known-good", "time (UTC)", "author", "reason", "sha256"),
        (
            (
                "*" if version.version == active else "",
                version.version,
                "yes" if version.known_good else "",
                dt.datetime.fromtimestamp(version.created_ns / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M:%S"),
                version.author,
                version.reason,
                version.sha256[:12],
            )
            for version in found
        ),
        empty="no versions",
    )


@policies.command("diff")
def diff(
    policy: _POLICY,
    old: Annotated[int | None, typer.Argument(help="version; default: the last known-good one")] = None,
    new: Annotated[int | None, typer.Argument(help="version; default: the active one")] = None,
) -> None:
    """Show how two versions differ."""
    gateway = _gateway()
    good = [version.version for version in gateway.versions(policy) if version.known_good]
    if old is None and not good:
        raise NotFound(f"{policy} has no known-good version", hint=f"clawback policy mark {policy} VERSION")
    first = old if old is not None else good[-1]
    second = new if new is not None else gateway.active(policy).version
    lines = difflib.unified_diff(
        gateway.read(policy, first).splitlines(),
        gateway.read(policy, second).splitlines(),
        f"{policy} v{first}",
        f"{policy} v{second}",
        lineterm="",
    )
    for line in lines:
        sys.stdout.write("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) + "\n")


@policies.command("restore")
def restore(
    policy: _POLICY,
    version: Annotated[int | None, typer.Argument(help="default: the last known-good one")] = None,
    reason: Annotated[str, typer.Option("--reason", help="why; kept with the version")] = "clawback policy restore",
    as_json: _JSON = False,
) -> None:
    """Make an earlier version active again, as a new version equal to it."""
    gateway = _gateway()
    if version is None:
        good = [found.version for found in gateway.versions(policy) if found.known_good]
        if not good:
            raise NotFound(f"{policy} has no known-good version", hint=f"clawback policy mark {policy} VERSION")
        version = good[-1]
    restored = gateway.restore(policy, version, author=operator(), reason=reason)
    if as_json:
        print_json(restored)
    else:
        console.print(f"{safe(policy)}: version {restored.version} is active, equal to version {version}")


@policies.command("mark")
def mark(policy: _POLICY, version: Annotated[int, typer.Argument(help="version to mark known-good")]) -> None:
    """Mark a version as known-good: what recovery may return to."""
    marked = _gateway().mark_known_good(policy, version, author=operator())
    console.print(f"{safe(policy)}: version {marked.version} is known-good")


@policies.command("check")
def check(files: Annotated[list[Path], typer.Argument(help="policy files")], *, as_json: _JSON = False) -> None:
    """Say of each file which form it is and who enforces what of it. Exit 0, or 2 if any is not sound."""
    from clawback.enforcement.policy.loader import load

    rows: list[dict[str, object]] = []
    bad = 0
    for file in files:
        try:
            found = load(file.read_bytes(), where=str(file))
        except OSError as failure:
            error = InvalidInput(f"{file}: {failure.strerror}", hint="name a readable file")
        except InvalidInput as unsound:
            error = unsound
        else:
            rows.append(_sound(file, found))
            if not as_json:
                _show(file, found)
            continue
        bad = fail(error)
        rows.append({"file": str(file), "sound": False, "error": error.message, "hint": error.hint})
    if as_json:
        print_json(rows)
    raise typer.Exit(bad)


def _sound(file: Path, found: PolicyFile) -> dict[str, object]:
    network = found.network
    return {
        "file": str(file),
        "sound": True,
        "form": found.form,
        "name": found.sandbox.name,
        "sha256": found.sha256,
        "rules": len(network.allow) + len(network.deny) + len(network.rules),
        "effects": found.effects,
        "unenforced": found.unenforced,
    }


def _show(file: Path, found: PolicyFile) -> None:
    loose = len(found.unenforced)
    note = f"; {loose} {'key' if loose == 1 else 'keys'} not enforced" if loose else ""
    console.print(f"{safe(file)}: sound, {found.form}{note}")
    if found.effects:
        table(
            ("key", "enforced by", "how"),
            ((effect.key, effect.by or "nothing", effect.how) for effect in found.effects),
            empty="",
        )
