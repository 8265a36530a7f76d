"""`orders list|lift`: what incidents deny agents at the gateway, over every policy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.agents import operator
from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import NotEnforced, NotFound

if TYPE_CHECKING:
    from clawback.enforcement.gateway.client import GatewayClient
    from clawback.model import EgressOrder

__all__: list[str] = []

group = typer.Typer(no_args_is_help=True, help="Orders over the agents' way out.")
app.add_typer(group, name="orders")

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]


def _gateway() -> GatewayClient:
    from clawback.enforcement.gateway.client import GatewayClient

    return GatewayClient(settings().gateway_socket)


@group.command("list")
def list_orders(*, as_json: _JSON = False) -> None:
    """List the orders that stand, oldest first, with how many requests each has wait now."""
    gateway = _gateway()
    found, held = gateway.orders(), gateway.held()
    if as_json:
        print_json({"orders": found, "held": held})
        return
    table(
        ("order", "denies", "for", "incident", "by", "user", "age", "held", "reason"),
        (
            (
                one.id,
                one.what,
                one.scope,
                one.incident or "-",
                one.by,
                one.uid,
                f"{(time.time_ns() - one.placed_ns) / 1e9:.0f} s" if one.placed_ns else "-",
                held.get(one.id, 0) or "-",
                one.reason,
            )
            for one in found
        ),
        empty="no orders",
    )


@group.command("lift")
def lift(
    order: Annotated[str, typer.Argument(help="the order's id")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the gateway's log")],
    as_json: _JSON = False,
) -> None:
    """End one order, a damaged one too: from the next request on it denies nothing. Policies, holds and others stay."""
    gateway = _gateway()
    lifted = gateway.lift(order, reason=reason, by=operator())
    if lifted is None:
        raise NotFound(f"no order {order[:127]!r} stands", hint="clawback orders list")
    if any(one.id == order for one in gateway.orders()):
        raise NotEnforced(f"order {order} was lifted and stands again", hint="who gives it? clawback orders list")
    _show(lifted, as_json=as_json)


def _show(lifted: EgressOrder, *, as_json: bool) -> None:
    if as_json:
        print_json(lifted)
    else:
        console.print(f"{safe(lifted.id)}: lifted; it denied {safe(lifted.what, 400)} to {safe(lifted.scope, 250)}")
