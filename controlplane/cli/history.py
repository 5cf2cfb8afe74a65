"""`mizzen history`: who changed a resource, when, and what."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import click

from controlplane.cli.options import access_options, connect
from controlplane.model.history import differences
from controlplane.model.kinds import KINDS


@click.command()
@access_options
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-o", "--output", type=click.Choice(["diff", "json"]), default="diff", show_default=True)
@click.argument("kind")
@click.argument("name")
def command(data_dir: str | None, kubeconfig: str | None, namespace: str, output: str, kind: str, name: str) -> None:
    """Show every change of a resource that is remembered, the newest first.

    KIND is written as for kubectl: VirtualService, virtualservice, virtualservices, vs.
    """
    asked = urlencode({"kind": _kind(kind), "namespace": namespace, "name": name})
    history: list[dict[str, Any]] = connect(data_dir, kubeconfig).request("GET", f"/mizzen/v1/history?{asked}")["items"]
    if output == "json":
        click.echo(json.dumps(history, indent=2))
    else:
        click.echo("\n".join(differences(history)), nl=False)


def _kind(text: str) -> str:
    for kind in KINDS.values():
        if text.lower() in (kind.name.lower(), kind.plural, kind.singular, *kind.short_names):
            return kind.name
    raise click.BadParameter(f"{text!r} is not a kind that is known here", param_hint="KIND")
