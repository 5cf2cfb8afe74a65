"""`mizzen proxy-status`: who is connected, and whether it has what it should have."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from controlplane.cli.ca import AUTHORITY, show_warnings
from controlplane.cli.options import access_options, connect

_TYPES: Final = ("CDS", "EDS", "LDS", "RDS", "SDS", "ECDS")


@click.command()
@access_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.argument("name", required=False)
def command(data_dir: str | None, kubeconfig: str | None, output: str, name: str | None) -> None:
    """Which proxies are connected, and what they have acknowledged.

    NAME is a part of a proxy's name or id. What a proxy refused is told below the table, and in the status of the resources
    that caused it. The exit status is 1 if there is a refusal.
    """
    api = connect(data_dir, kubeconfig)
    found = [
        one
        for one in api.request("GET", "/mizzen/v1/proxies")
        if name is None or name in one["name"] or name in one["proxy"]
    ]
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
        show_warnings(api.request("GET", AUTHORITY)["warnings"])
    if any(state["error"] for one in found for state in one["types"].values()):
        raise SystemExit(1)


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        click.echo("no proxies are connected")
        return
    table = Table(box=None, header_style="bold")
    for column in ("NAME", "TYPE", "VERSION", *_TYPES, "SINCE"):
        table.add_column(column, no_wrap=True)
    for one in found:
        states = [one["types"].get(short, {}).get("status", "-") for short in _TYPES]
        since = f"{max(0.0, time.time() - one['connectedAt']):.0f}s"
        table.add_row(one["name"], one["type"], one["version"], *states, since)
    Console(width=200).print(table)
    for one in found:
        for short, state in one["types"].items():
            if state["error"]:
                click.echo(f"\n{one['name']} refuses {short}: {state['error']}")
