"""Options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from controlplane.cli.api import Api
from controlplane.cli.identity import join, settled, what_ended
from controlplane.cli.kubeconfig import Access, default_data_dir, find_access
from controlplane.cli.workload import ADMIN_PORT, PROXY_PORT, Discovery, Workload, parse_host_port
from controlplane.nodeagent.identity_directory import AGENT, ROOT, SECRET

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


def agent_option(function: _Function) -> _Function:
    """`--agent-socket`: who has the workload's identity."""
    return click.option(
        "--agent-socket",
        metavar="PATH",
        help="The workload's socket at the node agent of this machine, which has its certificate: xDS over TLS by that.",
    )(function)


def workload_options(function: _Function) -> _Function:
    """What describes a workload; the function gets them all as keyword arguments."""
    for option in (
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A further label; may be repeated."),
        click.option(
            "--token",
            default="",
            envvar="MIZZEN_JOIN_TOKEN",
            help="A join token (mizzen token create), for xDS over TLS; in MIZZEN_JOIN_TOKEN no other user sees it.",
        ),
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
    api: Api,
    workload: Workload,
    xds_address: str | None,
    token: str,
    identity_dir: str | None,
    agent_socket: str | None = None,
) -> Discovery:
    """Where the workload finds xDS: plaintext on this machine, or over TLS with a certificate.

    The certificate comes from the node agent at ``agent_socket``; without that, a token is traded for one; without one, the
    certificate of an earlier time is used if it is there.
    """
    if agent_socket and (token or identity_dir):
        raise click.UsageError(
            "--agent-socket: the node agent has the identity: use --token with mizzen join, before the agent"
        )
    addresses = api.request("GET", "/mizzen/v1/addresses")
    if agent_socket:
        return Discovery(secure_address(xds_address, addresses), agent=str(Path(agent_socket).absolute()))
    directory = (
        Path(identity_dir)
        if identity_dir
        else default_data_dir() / "identities" / workload.namespace / workload.account
    )
    if token or identity_dir:
        chain, key = certificate_in(api, token, directory)
        address = secure_address(xds_address, addresses)
        secret = directory / SECRET
        watched = str(secret.absolute()) if secret.exists() else ""
        return Discovery(address, api.access.authority, str(chain.absolute()), str(key.absolute()), watched)
    address = xds_address or addresses.get("xds", "")
    if not address:
        raise click.ClickException("the control plane serves no xDS in plaintext: give a --token, for xDS over TLS")
    return Discovery(address)


def reach(data_dir: str | None, kubeconfig: str | None, identity: Path | None) -> tuple[Api, bool]:
    """The control plane that the options mean, and whether it lets us make resources there; a machine that has nothing but an
    identity speaks to whoever it has that from.
    """
    try:
        return connect(data_dir, kubeconfig), True
    except click.ClickException:
        if data_dir is not None or kubeconfig is not None or identity is None or not (identity / AGENT).exists():
            raise
    try:
        server = json.loads((identity / AGENT).read_text())["server"]
        api = Api(Access(server, (identity / ROOT).read_text(), ""))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise click.ClickException(f"{identity}: {error}: join again, with a new --token") from None
    api.show_certificate(*settled(identity))
    return api, False


def identity_directory(workload: Workload, token: str, identity_dir: str | None) -> Path | None:
    """Where the workload's identity is, or is to be; None if it has none and gets none."""
    directory = (
        Path(identity_dir)
        if identity_dir
        else default_data_dir() / "identities" / workload.namespace / workload.account
    )
    return directory.absolute() if token or identity_dir or (directory / SECRET).exists() else None


def identity_of(api: Api, workload: Workload, token: str, directory: Path) -> None:
    """The identity is in ``directory``: a token is traded for it; without one, that of an earlier time is used. Raises
    click.ClickException.
    """
    if token or not (directory / SECRET).exists():
        certificate_in(api, token, directory)
    if not token and (ended := what_ended(directory, api.access.server)):
        click.secho(f"WARNING: {ended}", fg="yellow", err=True)  # and not the end: the clock may be wrong


def certificate_in(api: Api, token: str, directory: Path) -> tuple[Path, Path]:
    """The files of certificates and key: a token is traded for them, or they are of an earlier time. Raises
    click.ClickException.
    """
    chain, key = join(api, token, directory) if token else settled(directory)
    if not chain.exists() or not key.exists():
        raise click.ClickException(f"{directory} has no chain.pem and key.pem: give a --token for a new certificate")
    return chain, key


def secure_address(xds_address: str | None, addresses: Mapping[str, str]) -> str:
    address = xds_address or addresses.get("secureXds", "")
    if not address:
        raise click.ClickException("the control plane serves no xDS over TLS: start it with --secure-xds-address")
    return address
