"""`mizzen bootstrap`: the file from which a workload's sidecar starts."""

from __future__ import annotations

from typing import Any

import click
import yaml

from controlplane.cli.options import access_options, connect, discovery_of, workload_of, workload_options
from controlplane.cli.workload import bootstrap_document, ensure_resources


@click.command()
@access_options
@workload_options
def command(
    data_dir: str | None,
    kubeconfig: str | None,
    xds_address: str | None,
    token: str,
    identity_dir: str | None,
    **options: Any,
) -> None:
    """Print the bootstrap file of a service's sidecar.

    Its Service and WorkloadGroup are made if they are not there. Then, beside the service:

        python -m sidecar --config FILE
    """
    workload = workload_of(**options)
    api = connect(data_dir, kubeconfig)
    workload = ensure_resources(api, workload)
    document = bootstrap_document(workload, discovery_of(api, workload, xds_address, token, identity_dir))
    click.echo(yaml.dump(document, Dumper=_WithoutAliases, sort_keys=False), nl=False)


class _WithoutAliases(yaml.SafeDumper):
    """What stands twice is written twice: people read this file, and change it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
