"""`python -m controlplane.nodeagent`: the node agent's command line."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from controlplane.model.descriptors import raise_descriptor_limit
from controlplane.nodeagent.agent import Agent
from controlplane.nodeagent.figures import FiguresServer
from controlplane.nodeagent.hardening import keep_to_ourselves

log = logging.getLogger("controlplane.nodeagent")

_LEVELS = ("debug", "info", "warning", "error")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--identities", required=True, metavar="DIR", help="Where mizzen join has put them: DIR/NAMESPACE/ACCOUNT."
)
@click.option("--sockets", required=True, metavar="DIR", help="Workloads connect to DIR/NAMESPACE/ACCOUNT/agent.sock.")
@click.option(
    "--server",
    default="",
    metavar="URL",
    help="The control plane of identities whose directory does not name it: https://HOST:15080.",
)
@click.option(
    "--metrics-address",
    default="127.0.0.1:15020",
    show_default=True,
    metavar="HOST:PORT",
    help="/metrics and /ready, on loopback; '' for none.",
)
@click.option("-l", "--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
@click.version_option(package_name="mizzen", prog_name="mizzen node agent")
def main(identities: str, sockets: str, server: str, metrics_address: str, log_level: str) -> None:
    """Mizzen's node agent: identities for the workloads of this node, by SDS and the SPIFFE Workload API.

    Prints "serving NAMESPACE/ACCOUNT SOCKET" for each workload once its socket answers, and "ready" when all that were there
    at the start do. SIGTERM and Ctrl-C end it.
    """
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("hpack", "h2", "grpclib", "aiohttp"):  # what they say is of their own inside
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    address = _loopback(metrics_address) if metrics_address else None
    if server and (urlsplit(server).scheme != "https" or not urlsplit(server).hostname):
        raise click.BadParameter("must be a URL such as https://10.0.0.1:15080", param_hint="--server")
    try:
        keep_to_ourselves()
        raise_descriptor_limit()
        asyncio.run(_serve(Path(identities).absolute(), Path(sockets).absolute(), server, address))
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _loopback(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not ADDRESS:PORT", param_hint="--metrics-address") from None
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not ADDRESS:PORT", param_hint="--metrics-address")
    if not found.is_loopback:
        raise click.BadParameter(f"{text} can be reached from elsewhere: use 127.0.0.1", param_hint="--metrics-address")
    return str(found), int(port)


async def _serve(identities: Path, sockets: Path, server: str, address: tuple[str, int] | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    agent = Agent(identities, sockets, server=server, on_serving=lambda name, path: _say(f"serving {name} {path}"))
    figures = None if address is None else FiguresServer(agent, *address)
    running: asyncio.Task[None] | None = None
    try:
        await agent.start()
        if figures is not None:
            await figures.start()
        where = "" if figures is None else f", metrics on {figures.host}:{figures.port}"
        _say(f"ready: {len(agent.workloads)} workloads{where}")
        running = asyncio.create_task(agent.run())
        await stopped.wait()
        log.info("stopping: proxies go on with what they have")
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await agent.stop()
        if figures is not None:
            await figures.stop()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
