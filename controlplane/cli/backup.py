"""`mizzen backup`: a copy of the embedded store, while the control plane runs or not."""

from __future__ import annotations

from pathlib import Path

import click

from controlplane.cli.kubeconfig import default_data_dir
from controlplane.galley.sqlite_ledger import copy
from controlplane.model.store import Unavailable


@click.command()
@click.option("--data-dir", metavar="DIR", help="The data directory of the control plane, on this machine.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def command(data_dir: str | None, file: Path) -> None:
    """Copy the store of a control plane to FILE, as it is at one moment. FILE holds secrets: keep it as safe as the store.

    To restore, stop the control plane, put FILE at store.sqlite in its data directory, remove store.sqlite-wal and
    store.sqlite-shm, and start it.
    """
    store = (Path(data_dir) if data_dir else default_data_dir()) / "store.sqlite"
    if not store.is_file():
        raise click.ClickException(
            f"{store} is not there: name the data directory of a control plane with a store of its own"
        )
    try:
        copy(store, file)
    except (FileExistsError, Unavailable) as error:
        raise click.ClickException(str(error)) from error
