"""The command line's root: global options, settings, and the one place where errors become exit statuses.

Exit statuses: 0 done, and observed where something was to be observed · 1 not enforced or not verified · 2 bad input or
usage · 3 a part did not answer · 4 not found · 5 refused · 70 a defect in Clawback · 130 interrupted. `clawback run`
ends with its program's own status, or 125 where the program could not be started.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog
import typer
from typer.exceptions import Abort, TyperException

import clawback
from clawback import config, log
from clawback.cli.output import fail
from clawback.errors import ClawbackError

__all__ = ["app", "config_file", "main", "settings"]

app = typer.Typer(
    name="clawback",
    help="Incident response for AI agents: contain, prove, restore.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class _Chosen:
    config: Path | None = None
    state: Path | None = None


_chosen = _Chosen()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clawback {clawback.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    config_file: Annotated[
        Path | None, typer.Option("--config", help="settings file (default: clawback.yaml)", show_default=False)
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="state folder, over the settings'", show_default=False)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    del version
    _chosen.config, _chosen.state = config_file, state
    log.configure()


def settings() -> config.Settings:
    """The settings of this call."""
    if _chosen.state is not None:
        return config.load(_chosen.config, state=_chosen.state)
    return config.load(_chosen.config)


def config_file() -> Path | None:
    """The settings file named on the command line, to hand on to child processes."""
    return _chosen.config


def main() -> None:
    """Entry point of the `clawback` command."""
    try:
        status = app(standalone_mode=False)
    except ClawbackError as error:
        status = fail(error)
    except TyperException as error:
        status = fail(_usage(error)) if error.format_message() else 2  # no message: the help was shown instead
    except (KeyboardInterrupt, Abort):
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        status = 141
    except Exception:
        structlog.get_logger().exception("defect")
        status = 70
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: TyperException) -> ClawbackError:
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context is not None else "clawback --help"
    wrapped = ClawbackError(error.format_message(), hint=hint)
    wrapped.exit_status = 2
    return wrapped
