"""`mizzen ca`: the mesh's certificate authority: how far its rotation is, and what an operator does to it."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from controlplane.cli.options import access_options, connect

AUTHORITY: Final = "/mizzen/v1/authority"
_ROTATION: Final = AUTHORITY + "/rotation"
_SHOWN: Final = 20
_GATES: Final = {
    1: "the new root is told to everybody, and does not sign yet",
    2: "the new root signs; certificates under the old one are renewed",
    3: "all have renewed; the old root leaves when the last certificate under it has ended",
}


@click.group()
def command() -> None:
    """The certificate authority: its root, and the rotation of it."""


@command.command()
@access_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(data_dir: str | None, kubeconfig: str | None, output: str) -> None:
    """Which roots there are, and how far a rotation is: the gate, whom it waits for, and until when.

    The exit status is 1 if something needs to be looked at soon.
    """
    api = connect(data_dir, kubeconfig)
    found = api.request("GET", AUTHORITY)
    found["roots"] = api.request("GET", "/mizzen/v1/certificates/authority")
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if found["warnings"]:
        raise SystemExit(1)


@command.command()
@access_options
@click.option(
    "--key-type", type=click.Choice(["ecdsa", "rsa"]), default="ecdsa", show_default=True, help="Of the new root."
)
@click.option(
    "--accept-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Let the new root sign after that, though somebody has not confirmed it: their connections may break.",
)
def rotate(data_dir: str | None, kubeconfig: str | None, key_type: str, accept_timeout: float | None) -> None:
    """Replace the root by a new one, by gates, so that no connection breaks.

    The new root signs when every node agent has confirmed that its proxies trust it; the old one leaves when the last
    certificate under it has ended. `mizzen ca status` tells how far it is; `mizzen ca abort` takes it back before it signs.
    """
    body: dict[str, Any] = {"keyType": key_type}
    if accept_timeout is not None:
        body["timeout"] = accept_timeout
    _show_rotation(connect(data_dir, kubeconfig).request("POST", _ROTATION, body)["rotation"])


@command.command()
@access_options
@click.option(
    "--gate", type=click.IntRange(1, 3), required=True, help="The gate at which the rotation is (mizzen ca status)."
)
@click.option("--force", is_flag=True, help="Required: whoever has not passed the gate may lose connections.")
def advance(data_dir: str | None, kubeconfig: str | None, gate: int, force: bool) -> None:
    """Pass a gate of the rotation though it is not time.

    Gate 1: the new root signs, and who has not confirmed refuses what it signs until they hear of it. Gates 2 and 3: the old
    root leaves, and who has not renewed is refused by everybody.
    """
    api = connect(data_dir, kubeconfig)
    if not force:
        rotation = api.request("GET", AUTHORITY)["rotation"]
        if rotation is not None:
            _show_rotation(rotation)
        raise click.UsageError("nothing is done without --force: it goes on by itself when that breaks nothing")
    found = api.request("POST", _ROTATION + "/advance", {"gate": gate})["rotation"]
    if found is None:
        click.echo("the rotation is done: the new root alone is trusted")
    else:
        _show_rotation(found)


@command.command()
@access_options
def abort(data_dir: str | None, kubeconfig: str | None) -> None:
    """Take a new root back that has not signed yet."""
    connect(data_dir, kubeconfig).request("DELETE", _ROTATION)
    click.echo("the rotation is taken back: the old root signs on")


def show_warnings(warnings: list[str]) -> None:
    """What somebody should look at soon, below whatever was asked."""
    for warning in warnings:
        click.secho(f"WARNING: {warning}", fg="yellow", err=True)


def _show(found: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("ROLE", "SUBJECT", "SERIAL", "EXPIRES"):
        table.add_column(column, no_wrap=True)
    for one in found["roots"]:
        role = f"{one['role']}, signs" if one["signing"] else one["role"]
        table.add_row(role, one["subject"], one["serial"], _time(one["notAfter"]))
    Console(width=200).print(table)
    click.echo("")
    if found["rotation"] is None:
        click.echo("no rotation is under way")
    else:
        _show_rotation(found["rotation"])
    if found["revokedCertificates"] or found["revokedIdentities"]:
        click.echo(f"revoked: {found['revokedCertificates']} certificates, {found['revokedIdentities']} identities")
    show_warnings(found["warnings"])


def _show_rotation(found: dict[str, Any]) -> None:
    gate = found["gate"]
    click.echo(f"rotation to {found['incoming']['subject']}, begun {_time(found['startedAt'])} by {found['by']}")
    click.echo(f"gate {gate} of 3: {_GATES[gate]}")
    if gate == 1:
        click.echo(f"confirmed: {found['known'] - found['unconfirmed']} of {found['known']}")
        if found["deadline"] is not None:
            click.echo(f"it signs in any case at {_time(found['deadline'])}")
        for one in found["waitingForControlPlanes"]:
            click.echo(f"waiting for control plane {one}")
    else:
        click.echo(
            f"it signs since {_time(found['switchedAt'])}; certificates that are not renewed: {found['notMoved']}"
        )
        click.echo(f"the old root leaves {_time(found['lastCertificateEnds'])}")
    for one in found["waitingFor"][:_SHOWN]:
        asked = ""
        if gate == 1:
            asked = "has never asked" if one["askedAt"] is None else f"asked last {_time(one['askedAt'])}"
        ends = "" if one["certificateEnds"] is None else f"certificate ends {_time(one['certificateEnds'])}"
        click.echo(
            "  waiting for " + ", ".join(filter(None, (f"{one['identity']} at {one['host'] or '?'}", asked, ends)))
        )
    more = (found["unconfirmed"] if gate == 1 else found["notMoved"]) - _SHOWN
    if more > 0:
        click.echo(f"  and {more} more")


def _time(seconds: float) -> str:
    text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    left = seconds - time.time()
    return text if left <= 0 else f"{text} (in {datetime.timedelta(seconds=round(left))})"
