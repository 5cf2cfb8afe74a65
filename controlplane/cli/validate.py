"""`mizzen validate`: whether the resources in files are right, each by itself."""

from __future__ import annotations

import sys

import click

from controlplane.galley.validation.files import read_resources
from controlplane.model.parsing import warnings


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
def command(paths: tuple[str, ...]) -> None:
    """Check resource files, without a control plane.

    FILE is a YAML or JSON file, a directory of them, or - for standard input. Every fault is told with its file, line and
    field; the status is 1 if there is one.
    """
    resources, problems = read_resources(paths)
    for problem in problems:
        click.echo(problem, err=True)
    for resource in resources:
        for cause in warnings(resource):
            click.echo(f"{resource.origin}: {resource.key}: warning: {cause}", err=True)
    click.echo(f"resources that are right: {len(resources)}, faults: {len(problems)}")
    if problems:
        sys.exit(1)
