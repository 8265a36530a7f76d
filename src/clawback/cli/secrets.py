"""`secret put` and `secret list`: values for agents' credentials, into the store and never out of it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import print_json, table
from clawback.errors import InvalidInput, NotFound
from clawback.model import CREDENTIAL_KINDS, CredentialRef

if TYPE_CHECKING:
    from clawback.connectors.secret_store import FileSecretStore

__all__ = ["KINDS", "read_credential"]

KINDS = CREDENTIAL_KINDS
_MOST_BYTES = 1 << 20
_FORM = "NAME, or NAME:placeholder:VARIABLE:HOST,HOST (the variable may be empty)"

secret = typer.Typer(name="secret", help="Store the values of agents' credentials.", no_args_is_help=True)
app.add_typer(secret)


def _store() -> FileSecretStore:
    from clawback.connectors.secret_store import FileSecretStore

    return FileSecretStore(settings().state / "secrets")


@secret.command()
def put(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    name: Annotated[str, typer.Argument(help="the credential's name, as in clawback run --credential")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="where the value is read from; default: standard input")
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help=f"{', '.join(KINDS)}; no action replaces an opaque one")
    ] = "opaque",
    identifier: Annotated[
        list[str] | None, typer.Option("--id", help="KEY=VALUE, what identifies it to its issuer; never a secret")
    ] = None,
    following: Annotated[
        bool, typer.Option("--next", help="keep it beside the present value, for the action that replaces it")
    ] = False,
) -> None:
    """Store a value, from a file or standard input, byte for byte; a terminal is asked without echo.

    It takes the place of the value before: at once for placeholders, with the next launch for files.
    """
    if following:
        _stage(agent, name, file, named=bool(identifier) or kind != "opaque")
        return
    if kind not in KINDS:
        raise InvalidInput(f"--kind: no kind {kind[:64]!r}", hint=f"one of {', '.join(KINDS)}")
    identifiers = {}
    for item in identifier or []:
        key, mark, value = item.partition("=")
        if not (key and mark and value):
            raise InvalidInput(f"--id {key[:64]!r}: no value", hint="--id KEY=VALUE")
        identifiers[key] = value
    _store().put(agent, CredentialRef(kind=kind, name=name, identifiers=identifiers), _value(file))
    sys.stderr.write(f"stored: {name} of {agent}\n")


def _stage(agent: str, name: str, file: Path | None, *, named: bool) -> None:
    if named:
        raise InvalidInput("--next keeps the kind and identifiers that are there", hint="leave out --kind and --id")
    ref = next((ref for ref in _store().refs(agent) if ref.name == name), None)
    if ref is None:
        raise NotFound(f"{agent} holds nothing named {name[:64]!a}", hint="--next goes beside a value that is stored")
    _store().stage(agent, ref, _value(file))
    sys.stderr.write(f"stored beside the present value: {name} of {agent}\n")


@secret.command(name="list")
def list_(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What is stored for an agent, without the values."""
    refs = _store().refs(agent)
    if as_json:
        print_json([{"name": ref.name, "kind": ref.kind, "identifiers": ref.identifiers} for ref in refs])
        return
    table(
        ("credential", "kind", "identified by"),
        ((ref.name, ref.kind, ", ".join(f"{k}={v}" for k, v in ref.identifiers.items()) or "-") for ref in refs),
        empty="nothing is stored",
    )


def read_credential(text: str) -> CredentialRef:
    """What `--credential` says. `InvalidInput`; which hosts are too wide is the core's to say."""
    name, *rest = text.split(":", 3)
    if name and not rest:
        return CredentialRef(kind="", name=name)  # kind and identifiers are the stored value's
    if not name or len(rest) != 3 or rest[0] != "placeholder":
        raise InvalidInput(f"--credential {name[:64]!r}: not understood", hint=_FORM)
    _, variable, hosts = rest
    if variable and not (variable.isidentifier() and variable.isascii()):
        raise InvalidInput(f"--credential {name[:64]!r}: {variable[:64]!r} is no variable's name", hint=_FORM)
    places = tuple(host.strip() for host in hosts.split(",") if host.strip())
    if not places:
        raise InvalidInput(f"--credential {name[:64]!r}: no hosts", hint=_FORM)
    return CredentialRef(kind="", name=name, delivery="placeholder", variable=variable, hosts=places)


def _value(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        text: str = typer.prompt("value", hide_input=True, err=True)
        return text
    where = "standard input" if file is None else str(file)
    try:
        if file is None:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(_MOST_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise InvalidInput(f"{where}: {error.strerror}", hint="--file names a readable file") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{where}: not UTF-8 text", hint="store it as Base64") from None
    if not text or len(data) > _MOST_BYTES:
        raise InvalidInput(f"{where}: {'empty' if not text else 'too large'}", hint=f"1 to {_MOST_BYTES} bytes")
    return text
