"""`mizzen analyze`: what does not fit together, in files or in a control plane, or in both."""

from __future__ import annotations

import sys

import click

from controlplane.cli.options import access_options, connect
from controlplane.galley.analysis.analyze import analyze, schema_error
from controlplane.galley.analysis.messages import Level, Message
from controlplane.galley.validation.files import read_resources
from controlplane.model.causes import Invalid
from controlplane.model.kinds import KINDS
from controlplane.model.parsing import parse
from controlplane.model.resource import Resource, ResourceKey

_LEVELS = {level.value: level for level in Level}


@click.command()
@access_options
@click.option(
    "--use-kube/--no-use-kube",
    "live",
    default=None,
    help="Whether to look at the control plane too. [default: if no files are named]",
)
@click.option("-n", "--namespace", default="", help="Tell of this namespace alone.")
@click.option(
    "--failure-threshold",
    "threshold",
    type=click.Choice(list(_LEVELS), case_sensitive=False),
    default="Error",
    show_default=True,
    help="From which level on the status is 1.",
)
@click.option(
    "--output-threshold",
    "shown",
    type=click.Choice(list(_LEVELS), case_sensitive=False),
    default="Info",
    show_default=True,
    help="From which level on messages are told.",
)
@click.argument("paths", metavar="[FILE]...", nargs=-1)
def command(
    data_dir: str | None,
    kubeconfig: str | None,
    live: bool | None,
    namespace: str,
    threshold: str,
    shown: str,
    paths: tuple[str, ...],
) -> None:
    """Look for what does not fit together: hosts, subsets and gateways that are not there, rules that are never used, ...

    FILE is a YAML or JSON file, a directory of them, or - for standard input. With files and --use-kube, the files are taken
    as if they had been applied. Messages have Istio's codes: https://istio.io/latest/docs/reference/config/analysis/
    """
    resources: dict[ResourceKey, Resource] = {}
    messages: list[Message] = []
    refused: list[str] = []
    if live or (live is None and not paths):
        _fetch(data_dir, kubeconfig, resources, messages, refused)
    found, problems = read_resources(paths)
    resources.update((resource.key, resource) for resource in found)
    refused += map(str, problems)
    for each in refused:
        click.echo(f"Error [IST0106] {each}")
    messages += analyze(resources)
    for message in messages:
        if namespace in ("", message.key.namespace) and message.type.level.rank <= _LEVELS[shown].rank:
            resource = resources.get(message.key)
            place = f" {resource.origin}" if resource is not None and resource.origin.path else ""
            click.echo(f"{message}{place and ' -' + place}")
    worst = min([message.type.level.rank for message in messages], default=len(Level))
    click.echo(f"resources: {len(resources)}, messages: {len(messages) + len(refused)}")
    if refused or worst <= _LEVELS[threshold].rank:
        sys.exit(1)


def _fetch(
    data_dir: str | None,
    kubeconfig: str | None,
    resources: dict[ResourceKey, Resource],
    messages: list[Message],
    refused: list[str],
) -> None:
    """What the control plane has, and what it has from files and could not take."""
    api = connect(data_dir, kubeconfig)
    told = api.request("GET", "/mizzen/v1/problems")
    refused += [f"{one['path']}:{one['line']}: {one['message']}" for one in told if one["source"] != "api"]
    for kind in KINDS.values():
        for item in api.list(kind):
            document = {"apiVersion": kind.api_version, "kind": kind.name} | item
            try:
                resource = parse(document)
            except Invalid as invalid:
                metadata = document["metadata"]
                key = ResourceKey(kind.name, metadata.get("namespace", ""), metadata["name"])
                messages.extend(schema_error(key, cause) for cause in invalid.causes)
            else:
                resources[resource.key] = resource
