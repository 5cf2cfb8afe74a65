"""`mizzen certs`: which identities have certificates, until when, and when the authority's own end."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from controlplane.cli.ca import AUTHORITY, show_warnings
from controlplane.cli.options import access_options, connect

_REVOKED: Final = "/mizzen/v1/certificates/revoked"
_NEAR: Final = ((1 / 6, "bold red"), (1 / 3, "yellow"))  # of a life; who renews does so with half of it left
_AUTHORITY_NEAR: Final = ((1 / 10, "bold red"), (1 / 5, "yellow"))


class _Certs(click.Group):
    """A command of its own, `list`, if none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Certs)
def command() -> None:
    """Which workloads have certificates that are good, and the authority's own; revoke them.

    Without a command: list.
    """


@command.command(name="list")
@access_options
@click.option(
    "--all", "every", is_flag=True, help="Also those that have a successor for the same identity and machine."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.argument("name", required=False)
def list_(data_dir: str | None, kubeconfig: str | None, every: bool, output: str, name: str | None) -> None:
    """Which workloads have certificates that are good, and the authority's own.

    NAME is a part of an identity. Of each identity and machine the newest is shown. Certificates near their end are coloured:
    yellow with a third of their life left, red with a sixth.
    """
    api = connect(data_dir, kubeconfig)
    found = [one for one in api.request("GET", "/mizzen/v1/certificates") if name is None or name in one["identity"]]
    if not every:
        found = list({(one["identity"], one["source"].rpartition(":")[0]): one for one in found}.values())
    found.sort(key=lambda one: (one["identity"], one["notAfter"]))
    authority = api.request("GET", "/mizzen/v1/certificates/authority")
    if output == "json":
        click.echo(json.dumps({"authority": authority, "certificates": found}, indent=2))
        return
    console = Console(width=240)
    console.print(_authority(authority))
    console.print()
    console.print(_workloads(found) if found else "no workload has a certificate")
    show_warnings(api.request("GET", AUTHORITY)["warnings"])


@command.command()
@access_options
@click.argument("serial", required=False)
@click.option(
    "--identity", metavar="SPIFFE-ID", help="All certificates of an identity; it gets none until it is restored."
)
@click.option(
    "--reason",
    default="unspecified",
    show_default=True,
    help="As RFC 5280 has them: keyCompromise, cessationOfOperation, ...; certificateHold can be taken back.",
)
def revoke(data_dir: str | None, kubeconfig: str | None, serial: str | None, identity: str | None, reason: str) -> None:
    """Revoke the certificate with this SERIAL, or an identity.

    Renewal and connections to the control plane are refused at once, and proxies refuse new connections when they have the list,
    within seconds. Connections that are open stay so until they end: see connectionPool.tcp.maxConnectionDuration.
    """
    body = {"reason": reason, **_which(serial, identity)}
    found = connect(data_dir, kubeconfig).request("POST", _REVOKED, body)
    for one in found["certificates"]:
        click.echo(f"revoked {one['serial']} {one['identity'] or '(not issued here)'}, until {_text(one['until'])}")
    if identity is not None:
        click.echo(f"revoked {identity}: it gets no certificates until: mizzen certs restore --identity {identity}")
    if found["listProblem"]:
        click.secho(f"WARNING: proxies are not told: {found['listProblem']}", fg="yellow", err=True)


@command.command()
@access_options
@click.argument("serial", required=False)
@click.option("--identity", metavar="SPIFFE-ID")
def restore(data_dir: str | None, kubeconfig: str | None, serial: str | None, identity: str | None) -> None:
    """Take a certificateHold back, or let an identity have certificates again. What else was revoked stays revoked."""
    connect(data_dir, kubeconfig).request("POST", _REVOKED + "/restore", _which(serial, identity))
    click.echo(f"{serial or identity} restored")


@command.command()
@access_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def revoked(data_dir: str | None, kubeconfig: str | None, output: str) -> None:
    """What is revoked and has not expired yet."""
    found = connect(data_dir, kubeconfig).request("GET", _REVOKED)
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    table = _table("REVOKED", "IDENTITY", "REASON", "AT", "BY", "UNTIL")
    for one in found["identities"]:
        table.add_row("(all)", one["identity"], one["reason"], _text(one["at"]), one["by"], "it is restored")
    for one in found["certificates"]:
        table.add_row(one["serial"], one["identity"], one["reason"], _text(one["at"]), one["by"], _text(one["until"]))
    Console(width=240).print(table if table.row_count else "nothing is revoked")


def _which(serial: str | None, identity: str | None) -> dict[str, str]:
    if (serial is None) == (identity is None):
        raise click.UsageError("say what is meant: a SERIAL, or --identity")
    return {"serial": serial} if serial is not None else {"identity": str(identity)}


def _authority(found: list[dict[str, Any]]) -> Table:
    table = _table("AUTHORITY", "SUBJECT", "KEY", "SERIAL", "EXPIRES", "LEFT")
    for one in found:
        role = f"{one['role']}, signs" if one["signing"] else one["role"]
        ends = _ends(one["notBefore"], one["notAfter"], _AUTHORITY_NEAR)
        table.add_row(role, one["subject"], one["key"], one["serial"], *ends)
    return table


def _workloads(found: list[dict[str, Any]]) -> Table:
    table = _table("IDENTITY", "SERIAL", "EXPIRES", "LEFT", "REQUESTER", "BY")
    for one in found:
        ends = _ends(one["issuedAt"], one["notAfter"], _NEAR)
        table.add_row(
            one["identity"], one["serial"], *ends, one["requester"], f"{one['authenticated']} {one['source']}"
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _ends(begin: float, end: float, near: Sequence[tuple[float, str]]) -> tuple[str, Text]:
    """When, and how long that is from now, in the colour that it deserves."""
    left = end - time.time()
    style = next((style for share, style in near if left < (end - begin) * share), "")
    return _text(end), Text(_duration(left), style)


def _text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _duration(seconds: float) -> str:
    if seconds <= 0:
        return "expired"
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // smaller)}{small}"
    return f"{int(seconds)}s"
