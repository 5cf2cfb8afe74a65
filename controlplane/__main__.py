"""`python -m controlplane`: the command line of the control plane."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import click
import uvloop

from controlplane.cli.kubeconfig import default_data_dir
from controlplane.model.descriptors import raise_descriptor_limit
from controlplane.settings import (
    API_ADDRESS,
    SECURE_XDS_ADDRESS,
    XDS_ADDRESS,
    InvalidSetting,
    Settings,
    parse_address,
)

_LEVELS = ("debug", "info", "warning", "error")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", metavar="DIR", help=f"Store, keys and admin.kubeconfig. [default: {default_data_dir()}]")
@click.option("--api-address", default=API_ADDRESS, show_default=True, help="REST, by HTTPS.")
@click.option(
    "--xds-address", default=XDS_ADDRESS, show_default=True, help="xDS in plaintext, on loopback; '' for none."
)
@click.option("--secure-xds-address", default=SECURE_XDS_ADDRESS, show_default=True, help="xDS over TLS; '' for none.")
@click.option("--store", default="", metavar="URL", help="etcd://HOST:PORT,... [default: SQLite in the data directory]")
@click.option(
    "--config-dir", "directories", multiple=True, metavar="DIR", help="Watch resource files there; may be repeated."
)
@click.option(
    "--name", "names", multiple=True, help="A DNS name or address by which others reach this; may be repeated."
)
@click.option(
    "--mesh-config",
    metavar="FILE",
    help="Istio's MeshConfig, in YAML, for as long as there is no ConfigMap istio in istio-system.",
)
@click.option("--trust-domain", default="cluster.local", show_default=True)
@click.option(
    "--grace",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Before a lost workload is taken out.",
)
@click.option(
    "--workload-certificate-lifetime",
    "workload_lifetime",
    type=click.FloatRange(min=1.0),
    default=86400.0,
    show_default=True,
    metavar="SECONDS",
    help="Of workloads' certificates, unless a request says otherwise.",
)
@click.option(
    "--max-workload-certificate-lifetime",
    "longest_workload_lifetime",
    type=click.FloatRange(min=1.0),
    default=90 * 86400.0,
    show_default=True,
    metavar="SECONDS",
    help="What a request may say.",
)
@click.option(
    "--ca-key-type",
    type=click.Choice(("ecdsa", "rsa")),
    default="ecdsa",
    show_default=True,
    help="Of the root that is made at the first start.",
)
@click.option(
    "--ca-directory",
    metavar="DIR",
    help="An authority of your own: ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem there.",
)
@click.option(
    "--ca-passphrase-file",
    metavar="FILE",
    help="Seals the authority's keys at rest, and opens ca-key.pem. [default: the environment's MIZZEN_CA_PASSPHRASE]",
)
@click.option(
    "--token-review",
    default="",
    metavar="KUBECONFIG|in-cluster",
    help="Believe service-account tokens for the audience istio-ca, as that Kubernetes API server judges them.",
)
@click.option("-l", "--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
@click.version_option(package_name="mizzen", prog_name="mizzen control plane")
def main(
    data_dir: str | None,
    api_address: str,
    xds_address: str,
    secure_xds_address: str,
    store: str,
    directories: tuple[str, ...],
    names: tuple[str, ...],
    mesh_config: str | None,
    trust_domain: str,
    grace: float,
    workload_lifetime: float,
    longest_workload_lifetime: float,
    ca_key_type: str,
    ca_directory: str | None,
    ca_passphrase_file: str | None,
    token_review: str,
    log_level: str,
) -> None:
    """Mizzen's control plane: Istio resources in, xDS out. SIGTERM and Ctrl-C end it; sidecars go on without it."""
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("uvicorn", "hpack", "h2", "grpclib"):  # what they say is of their own inside
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    try:
        api = parse_address(api_address, "--api-address")
        if api is None:
            raise InvalidSetting("--api-address: there is no control plane without it")
        if workload_lifetime > longest_workload_lifetime:
            raise InvalidSetting(
                f"--workload-certificate-lifetime {workload_lifetime:g} is more than --max-workload-certificate-lifetime "
                f"{longest_workload_lifetime:g}"
            )
        settings = Settings(
            data_dir=Path(data_dir) if data_dir else default_data_dir(),
            api=api,
            xds=parse_address(xds_address, "--xds-address"),
            secure_xds=parse_address(secure_xds_address, "--secure-xds-address"),
            store=store,
            directories=tuple(Path(one) for one in directories),
            names=names,
            mesh_config=Path(mesh_config) if mesh_config else None,
            trust_domain=trust_domain,
            grace=grace,
            workload_lifetime=workload_lifetime,
            longest_workload_lifetime=longest_workload_lifetime,
            ca_key_type=ca_key_type,
            ca_directory=Path(ca_directory) if ca_directory else None,
            ca_passphrase_file=Path(ca_passphrase_file) if ca_passphrase_file else None,
            token_review=token_review,
            ca_passphrase=os.environ.pop("MIZZEN_CA_PASSPHRASE", ""),
        )
        raise_descriptor_limit()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(_serve(settings))
    except (InvalidSetting, OSError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


async def _serve(settings: Settings) -> int:
    from controlplane.server import serve  # what is heavy is loaded when the options are right

    return await serve(settings)


if __name__ == "__main__":
    main()
