"""`mizzen token`: join tokens, by which a workload comes into the mesh, and tokens of people who look or decide."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import click

from controlplane.cli.kubeconfig import kubeconfig_text
from controlplane.cli.options import access_options, connect
from controlplane.nodeagent.identity_directory import write_private


@click.group()
def command() -> None:
    """Make, list and revoke tokens: of workloads that join, of viewers and of admins."""


@command.command()
@access_options
@click.option("--namespace", default="default", show_default=True)
@click.option("--service-account", help="Whom the token makes of its bearer: it is a join token, good once.")
@click.option("--viewer", metavar="NAME", help="Make a token for somebody who may read all but secrets.")
@click.option("--admin", metavar="NAME", help="Make a token for somebody who may do everything.")
@click.option(
    "--write-kubeconfig", metavar="FILE", help="Write the kubeconfig of a viewer or an admin, instead of printing."
)
@click.option("--lifetime", type=float, metavar="SECONDS", help="[default: 3600 for join tokens, else none]")
def create(
    data_dir: str | None,
    kubeconfig: str | None,
    namespace: str,
    service_account: str | None,
    viewer: str | None,
    admin: str | None,
    write_kubeconfig: str | None,
    lifetime: float | None,
) -> None:
    """Print a new token. It is told only now."""
    if sum(each is not None for each in (service_account, viewer, admin)) != 1:
        raise click.UsageError("say who gets the token: one of --service-account, --viewer and --admin")
    if service_account is not None and write_kubeconfig is not None:
        raise click.UsageError("a join token is for `mizzen join`: --write-kubeconfig goes with --viewer and --admin")
    body: dict[str, Any] = {} if lifetime is None else {"lifetime": lifetime}
    if service_account is not None:
        body |= {"namespace": namespace, "serviceAccount": service_account}
    else:
        body |= {"role": "viewer" if viewer is not None else "admin", "name": viewer or admin}
    api = connect(data_dir, kubeconfig)
    token = api.request("POST", "/mizzen/v1/tokens", body)["token"]
    if write_kubeconfig is None:
        click.echo(token)
    else:
        access = dataclasses.replace(api.access, token=token)
        write_private(Path(write_kubeconfig), kubeconfig_text(access, str(viewer or admin)).encode())
        click.echo(write_kubeconfig)


@command.command(name="list")
@access_options
def list_(data_dir: str | None, kubeconfig: str | None) -> None:
    """List tokens, without their secrets."""
    for one in connect(data_dir, kubeconfig).request("GET", "/mizzen/v1/tokens"):
        holder = one["name"] or f"{one['namespace']}/{one['service_account']}"
        state = "used" if one["used"] else "unused" if one["role"] == "workload" else "good"
        ends = "does not expire"
        if one["expires"] is not None:
            ends = (
                f"expires {datetime.datetime.fromtimestamp(one['expires'], datetime.UTC).isoformat(timespec='seconds')}"
            )
        click.echo(f"{one['id']}  {one['role']}  {holder}  {state}  {ends}")


@command.command()
@access_options
@click.argument("id")
def revoke(data_dir: str | None, kubeconfig: str | None, id: str) -> None:
    """Revoke a token by its id."""
    connect(data_dir, kubeconfig).request("DELETE", f"/mizzen/v1/tokens/{id}")
    click.echo(f"{id} revoked")
