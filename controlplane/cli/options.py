"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from controlplane.cli.api import Api
from controlplane.cli.identity import SECRET, join, settled
from controlplane.cli.kubeconfig import default_data_dir, find_access
from controlplane.cli.workload import ADMIN_PORT, PROXY_PORT, Discovery, Workload, parse_host_port

_Function = TypeVar("_Function", bound=Callable[..., Any])


def access_options(function: _Function) -> _Function:
    """`--data-dir` and `--kubeconfig`: which control plane."""
    function = click.option("--kubeconfig", metavar="FILE", help="A kubeconfig that leads to the control plane.")(
        function
    )
    return click.option("--data-dir", metavar="DIR", help="The data directory of a control plane on this machine.")(
        function
    )


def connect(data_dir: str | None, kubeconfig: str | None) -> Api:
    """The control plane that these options mean."""
    return Api(find_access(data_dir, kubeconfig))


def workload_options(function: _Function) -> _Function:
    """What describes a workload; the function gets them all as keyword arguments."""
    for option in (
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A further label; may be repeated."),
        click.option("--token", default="", help="A join token (mizzen token create), for xDS over TLS."),
        click.option(
            "--identity-dir",
            metavar="DIR",
            help="Where the certificate is kept that the token is traded for. [default: below the data directory]",
        ),
        click.option("--xds-address", metavar="HOST:PORT", help="Where xDS is. [default: as the control plane says]"),
        click.option(
            "--admin-port", type=int, default=ADMIN_PORT, show_default=True, help="Of the sidecar's admin interface."
        ),
        click.option(
            "--proxy-port",
            type=int,
            default=PROXY_PORT,
            show_default=True,
            help="The forward proxy on loopback through which programs reach other services (HTTP_PROXY).",
        ),
        click.option("--health-path", metavar="PATH", help="The application is well if a GET of this path says 200."),
        click.option(
            "--protocol", default="http", show_default=True, help="What the service speaks: http, http2, grpc, tcp, ..."
        ),
        click.option("--service-account", default="", help="[default: the service's name]"),
        click.option("--app", required=True, metavar="HOST:PORT", help="Where the application itself listens."),
        click.option(
            "--port", type=click.IntRange(1, 65535), required=True, help="Where its sidecar listens for others."
        ),
        click.option("--address", required=True, metavar="IP", help="The address at which others reach this workload."),
        click.option("--version", default="v1", show_default=True, help="The label `version`."),
        click.option("--service", required=True, help="The service that it is an instance of."),
        click.option("--namespace", default="default", show_default=True),
    ):
        function = option(function)
    return function


def workload_of(
    *,
    namespace: str,
    service: str,
    version: str,
    address: str,
    port: int,
    app: str,
    service_account: str,
    protocol: str,
    health_path: str | None,
    proxy_port: int,
    admin_port: int,
    labels: tuple[str, ...],
) -> Workload:
    """The workload that the options describe. Raises click.BadParameter."""
    host, app_port = parse_host_port(app, "--app")
    if (host, app_port) == (address, port):
        raise click.BadParameter(f"{app} is where the sidecar listens (--address and --port)", param_hint="--app")
    pairs = [one.partition("=") for one in labels]
    for key, equals, _ in pairs:
        if not equals or not key:
            raise click.BadParameter(f"{key!r} is not KEY=VALUE", param_hint="--label")
    probe = None if health_path is None else {"httpGet": {"path": health_path, "port": app_port, "host": host}}
    return Workload(
        service=service,
        namespace=namespace,
        address=address,
        port=port,
        app=app,
        version=version,
        protocol=protocol,
        service_account=service_account,
        proxy_port=proxy_port,
        admin_port=admin_port,
        labels={key: value for key, _, value in pairs},
        probe=probe,
    )


def discovery_of(
    api: Api, workload: Workload, xds_address: str | None, token: str, identity_dir: str | None
) -> Discovery:
    """Where the workload finds xDS: plaintext on this machine, or over TLS with a certificate.

    A token is traded for the certificate; without one, the certificate of an earlier time is used if it is there.
    """
    addresses = api.request("GET", "/mizzen/v1/addresses")
    directory = (
        Path(identity_dir)
        if identity_dir
        else default_data_dir() / "identities" / workload.namespace / workload.account
    )
    if token or identity_dir:
        chain, key = join(api, token, directory) if token else settled(directory)
        if not chain.exists() or not key.exists():
            raise click.ClickException(
                f"{directory} has no chain.pem and key.pem: give a --token for a new certificate"
            )
        address = xds_address or addresses.get("secureXds", "")
        if not address:
            raise click.ClickException("the control plane serves no xDS over TLS: start it with --secure-xds-address")
        secret = directory / SECRET
        watched = str(secret.absolute()) if secret.exists() else ""
        return Discovery(address, api.access.authority, str(chain.absolute()), str(key.absolute()), watched)
    address = xds_address or addresses.get("xds", "")
    if not address:
        raise click.ClickException("the control plane serves no xDS in plaintext: give a --token, for xDS over TLS")
    return Discovery(address)
