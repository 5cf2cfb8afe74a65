"""`mizzen join`: a machine that has nothing but a join token comes into the mesh."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from controlplane.cli.api import Api
from controlplane.cli.identity import join, renew, trusted_root
from controlplane.cli.kubeconfig import Access
from controlplane.nodeagent.identity_directory import ROOT


@click.command()
@click.option("--server", required=True, metavar="URL", help="The control plane: https://HOST:15080.")
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="MIZZEN_JOIN_TOKEN",
    help="A join token (mizzen token create); in MIZZEN_JOIN_TOKEN no other user sees it. Without one, what is there is renewed.",
)
@click.option(
    "--identity-dir",
    required=True,
    metavar="DIR",
    help="Where certificate, key and the mesh's root are kept; for a node agent: its IDENTITIES/NAMESPACE/ACCOUNT.",
)
@click.option(
    "--lifetime",
    type=click.FloatRange(1, 90 * 86400),
    metavar="SECONDS",
    help="Of each certificate. [default: as the control plane has it]",
)
@click.option(
    "--uid",
    "uids",
    type=click.IntRange(0, 2**32 - 2),
    multiple=True,
    help="Who may have the identity from the node agent, root aside; may be repeated. [default: the directory's owner]",
)
def command(server: str, token: str | None, identity_dir: str, lifetime: float | None, uids: tuple[int, ...]) -> None:
    """Get a certificate for this machine's workload, or renew it.

    Whoever answers at the address is believed only if their root is the one that the token names. The key is made here and
    stays here. A node agent (python -m controlplane.nodeagent) renews the certificate from then on, without the token; where
    there is none, run the same command without --token before the certificate ends.
    """
    if urlsplit(server).scheme != "https" or not urlsplit(server).hostname:
        raise click.BadParameter("must be a URL such as https://10.0.0.1:15080", param_hint="--server")
    directory = Path(identity_dir)
    if token is not None:
        root = trusted_root(server, token)
        chain, key = join(Api(Access(server, root, "")), token, directory, lifetime=lifetime, uids=uids)
    elif lifetime is not None or uids:
        raise click.UsageError("--lifetime and --uid are told with a --token: afterwards they are in agent.json")
    else:
        try:
            root = (directory / ROOT).read_text()
        except OSError as error:
            raise click.ClickException(f"{directory / ROOT}: {error.strerror}: give a --token to join first") from None
        chain, key = renew(Api(Access(server, root, "")), directory)
    click.echo(f"{chain}\n{key}\n{directory / ROOT}")
