"""`mizzen explain`: what would become of a request from one service to another, by the code of the sidecars on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from controlplane.cli.explaining import Journey, Leg
from controlplane.cli.imagined_mesh import ImaginedMesh
from controlplane.cli.live_mesh import LiveMesh
from controlplane.cli.options import access_options


@click.command()
@access_options
@click.option(
    "--from", "source", metavar="NAMESPACE/SERVICE", help="Who asks. Without it: somebody who has no sidecar."
)
@click.option(
    "--to", "target", required=True, metavar="SERVICE", help="SERVICE, NAMESPACE/SERVICE or a full host name."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Of the service. [default: its first]")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header; may be repeated.")
@click.option("--jwt", type=click.Path(dir_okay=False), metavar="FILE", help="A token, sent as Authorization: Bearer.")
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="Resources, in place of a control plane's."
)
@click.option("--verbose", is_flag=True, help="Tell of every listener and filter chain that is passed over, too.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.argument("method")
@click.argument("path")
def command(
    data_dir: str | None,
    kubeconfig: str | None,
    source: str | None,
    target: str,
    port: int | None,
    headers: tuple[str, ...],
    jwt: str | None,
    files: tuple[str, ...],
    verbose: bool,
    output: str,
    method: str,
    path: str,
) -> None:
    """Tell what would become of a request: mizzen explain --from shop/page --to reviews GET /x

    Both sidecars' configurations are translated, from files or by the control plane that runs, and the sidecar's own code says
    what each would do. Behind each step stands the resource that it comes from. Nothing is sent. The status is 0 if the request
    would reach the service, 3 if not.
    """
    if not path.startswith("/"):
        raise click.BadParameter("must begin with /", param_hint="PATH")
    if jwt is not None:
        try:
            headers = (*headers, f"authorization: Bearer {Path(jwt).read_text().strip()}")
        except (OSError, UnicodeError) as error:
            raise click.BadParameter(str(error), param_hint="--jwt") from None
    mesh = ImaginedMesh(files) if files else LiveMesh(data_dir, kubeconfig)
    legs = Journey(mesh, source, target, port, method.upper(), path, headers).legs()
    if output == "json":
        click.echo(json.dumps([leg.as_json() for leg in legs], indent=2))
    else:
        click.echo(_text(legs, verbose), nl=False)
    if not legs[-1].arrives:
        raise SystemExit(3)


def _text(legs: Sequence[Leg], verbose: bool) -> str:
    lines = []
    for leg in legs:
        lines.append(leg.title)
        for step in leg.steps:
            if verbose or _decides(step):
                origin = leg.origin(step)
                lines.append(f"  {step['text']}" + (f"  [{origin}]" if origin else ""))
                lines += [f"      {detail}" for detail in step["details"]]
    lines.append(legs[-1].verdict)
    return "".join(f"{line}\n" for line in lines)


def _decides(step: dict[str, Any]) -> bool:
    passed_over = step["outcome"] == "passed over"
    return step["stage"] != "verdict" and not (passed_over and step["stage"] in ("listener", "filter chain"))
