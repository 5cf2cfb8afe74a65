"""`mizzen join`: a machine that has nothing but a join token comes into the mesh."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from controlplane.cli.api import Api
from controlplane.cli.identity import ROOT, join, renew, trusted_root
from controlplane.cli.kubeconfig import Access


@click.command()
@click.option("--server", required=True, metavar="URL", help="The control plane: https://HOST:15080.")
@click.option(
    "--token", metavar="TOKEN", help="A join token (mizzen token create); without one, what is there is renewed."
)
@click.option(
    "--identity-dir", required=True, metavar="DIR", help="Where certificate, key and the mesh's root are kept."
)
def command(server: str, token: str | None, identity_dir: str) -> None:
    """Get a certificate for this machine's workload, or renew it.

    Whoever answers at the address is believed only if their root is the one that the token names. The key is made here and
    stays here. A certificate is good for a day: run the same command without --token before it ends.
    """
    if urlsplit(server).scheme != "https" or not urlsplit(server).hostname:
        raise click.BadParameter("must be a URL such as https://10.0.0.1:15080", param_hint="--server")
    directory = Path(identity_dir)
    if token is not None:
        root = trusted_root(server, token)
        chain, key = join(Api(Access(server, root, "")), token, directory)
    else:
        try:
            root = (directory / ROOT).read_text()
        except OSError as error:
            raise click.ClickException(f"{directory / ROOT}: {error.strerror}: give a --token to join first") from None
        chain, key = renew(Api(Access(server, root, "")), directory)
    click.echo(f"{chain}\n{key}\n{directory / ROOT}")
