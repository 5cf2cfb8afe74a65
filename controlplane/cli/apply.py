"""`mizzen apply`: create or change resources from files, where kubectl is not at hand."""

from __future__ import annotations

import click

from controlplane.cli.documents import read_documents
from controlplane.cli.options import access_options, connect


@click.command()
@access_options
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, help="A file, a directory, or - for standard input."
)
@click.option("-n", "--namespace", help="For documents that name none.")
def command(data_dir: str | None, kubeconfig: str | None, files: tuple[str, ...], namespace: str | None) -> None:
    """Create or change resources from files. All documents are read before the first one is sent."""
    documents = read_documents(files)
    api = connect(data_dir, kubeconfig)
    failed = 0
    for kind, document in documents:
        if kind.namespaced:
            document["metadata"].setdefault("namespace", namespace or api.access.namespace)
        name = f"{kind.singular}/{document['metadata']['name']}"
        try:
            click.echo(f"{name} {api.apply(kind, document)}")
        except click.ClickException as error:
            failed += 1
            click.echo(f"{name}: {error.message}", err=True)
    if failed:
        raise SystemExit(1)
