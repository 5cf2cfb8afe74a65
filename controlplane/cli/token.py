"""`mizzen token`: join tokens, by which a workload comes into the mesh."""

from __future__ import annotations

import datetime

import click

from controlplane.cli.options import access_options, connect


@click.group()
def command() -> None:
    """Make, list and revoke the join tokens of workloads."""


@command.command()
@access_options
@click.option("--namespace", default="default", show_default=True)
@click.option("--service-account", required=True, help="Whom the token makes of its bearer.")
@click.option("--lifetime", type=float, default=3600, show_default=True, metavar="SECONDS")
def create(data_dir: str | None, kubeconfig: str | None, namespace: str, service_account: str, lifetime: float) -> None:
    """Print a new join token. It serves once, and is told only now."""
    body = {"namespace": namespace, "serviceAccount": service_account, "lifetime": lifetime}
    click.echo(connect(data_dir, kubeconfig).request("POST", "/mizzen/v1/tokens", body)["token"])


@command.command(name="list")
@access_options
def list_(data_dir: str | None, kubeconfig: str | None) -> None:
    """List join tokens, without their secrets."""
    for one in connect(data_dir, kubeconfig).request("GET", "/mizzen/v1/tokens"):
        ends = datetime.datetime.fromtimestamp(one["expires"], datetime.UTC).isoformat(timespec="seconds")
        state = "used" if one["used"] else "unused"
        click.echo(f"{one['id']}  {one['namespace']}/{one['service_account']}  {state}  expires {ends}")


@command.command()
@access_options
@click.argument("id")
def revoke(data_dir: str | None, kubeconfig: str | None, id: str) -> None:
    """Revoke a token by its id."""
    connect(data_dir, kubeconfig).request("DELETE", f"/mizzen/v1/tokens/{id}")
    click.echo(f"{id} revoked")
