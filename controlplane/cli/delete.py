"""`mizzen delete`: remove the resources that files describe."""

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
    """Delete the resources that files describe."""
    documents = read_documents(files)
    api = connect(data_dir, kubeconfig)
    for kind, document in reversed(documents):
        metadata = document["metadata"]
        where = metadata.get("namespace") or namespace or api.access.namespace if kind.namespaced else ""
        there = api.delete(kind, where, metadata["name"])
        click.echo(f"{kind.singular}/{metadata['name']} {'deleted' if there else 'not found'}")
