"""`mizzen bootstrap`: the file from which a workload's sidecar starts."""

from __future__ import annotations

from typing import Any

import click
import yaml

from controlplane.cli.options import (
    access_options,
    agent_option,
    discovery_of,
    identity_directory,
    reach,
    workload_of,
    workload_options,
)
from controlplane.cli.workload import bootstrap_document, ensure_resources


@click.command()
@access_options
@workload_options
@agent_option
def command(
    data_dir: str | None,
    kubeconfig: str | None,
    xds_address: str | None,
    token: str,
    identity_dir: str | None,
    agent_socket: str | None,
    **options: Any,
) -> None:
    """Print the bootstrap file of a service's sidecar.

    Its Service and WorkloadGroup are made if they are not there. Then, beside the service:

        python -m sidecar --config FILE
    """
    workload = workload_of(**options)
    api, may_change = reach(data_dir, kubeconfig, identity_directory(workload, token, identity_dir))
    if may_change:
        workload = ensure_resources(api, workload)
    discovery = discovery_of(api, workload, xds_address, token, identity_dir, agent_socket)
    document = bootstrap_document(workload, discovery)
    click.echo(yaml.dump(document, Dumper=_WithoutAliases, sort_keys=False), nl=False)


class _WithoutAliases(yaml.SafeDumper):
    """What stands twice is written twice: people read this file, and change it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
