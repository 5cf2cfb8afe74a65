"""`mizzen run`: a service and its sidecar as one thing that starts and ends together."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from controlplane.cli.beside import Sidecar, SidecarFailed, environment_of, free_port, is_free, on_signals, run_command
from controlplane.cli.options import (
    access_options,
    agent_option,
    discovery_of,
    identity_directory,
    identity_of,
    reach,
    secure_address,
    workload_of,
    workload_options,
)
from controlplane.cli.own_agent import own_agent
from controlplane.cli.workload import ADMIN_PORT, PROXY_PORT, Discovery, Workload, bootstrap_document, ensure_resources


@click.command(context_settings={"ignore_unknown_options": True})
@access_options
@workload_options
@agent_option
@click.option("--ready-timeout", type=float, default=30.0, show_default=True, metavar="SECONDS")
@click.option(
    "--drain-time", type=float, default=5.0, show_default=True, metavar="SECONDS", help="At most, after the end."
)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    data_dir: str | None,
    kubeconfig: str | None,
    xds_address: str | None,
    token: str,
    identity_dir: str | None,
    agent_socket: str | None,
    ready_timeout: float,
    drain_time: float,
    arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Run a service with its sidecar beside it: mizzen run OPTIONS -- COMMAND ARGUMENTS...

    The command starts when the sidecar is ready, with HTTP_PROXY set so that it reaches other services by their names.
    It gets the signals that this gets. When it has ended the sidecar drains, and its status is returned.

    With a --token, or where a token was traded for an identity before, its connections to other services are mutual TLS, and
    the certificate is renewed for as long as this runs.
    """
    workload = with_free_ports(workload_of(**options))
    if agent_socket and (token or identity_dir):
        raise click.UsageError("--agent-socket: the node agent has the identity: use --token with mizzen join")
    identity = None if agent_socket else identity_directory(workload, token, identity_dir)
    api, may_change = reach(data_dir, kubeconfig, identity)
    if may_change:
        workload = ensure_resources(api, workload)
    if identity is not None:
        identity_of(api, workload, token, identity)
        discovery = Discovery(secure_address(xds_address, api.request("GET", "/mizzen/v1/addresses")))
    else:
        discovery = discovery_of(api, workload, xds_address, "", None, agent_socket)
    api.close()
    raise SystemExit(asyncio.run(run(workload, discovery, identity, arguments, ready_timeout, drain_time)))


async def run(
    workload: Workload,
    discovery: Discovery,
    identity: Path | None,
    arguments: tuple[str, ...],
    ready_timeout: float,
    drain_time: float,
) -> int:
    """Start the sidecar, then the command; the command's exit status, 128 and the number for a signal. An ``identity`` is served
    to the sidecar, and renewed, for as long. Raises click.ClickException for one that is none.
    """
    async with AsyncExitStack() as stack:
        if identity is not None:
            socket = await stack.enter_async_context(own_agent(workload.namespace, workload.account, identity))
            discovery = dataclasses.replace(discovery, agent=str(socket))
        return await _beside_its_sidecar(workload, discovery, arguments, ready_timeout, drain_time)


async def _beside_its_sidecar(
    workload: Workload, discovery: Discovery, arguments: tuple[str, ...], ready_timeout: float, drain_time: float
) -> int:
    sidecar = Sidecar(workload, bootstrap_document(workload, discovery), drain=drain_time)
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    on_signals(lambda number: None if told.done() else told.set_result(number))
    try:
        try:
            await sidecar.start()
            waiting = asyncio.ensure_future(sidecar.wait_ready(ready_timeout))
            await asyncio.wait((waiting, told), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return 128 + told.result()
            waiting.result()
        except SidecarFailed as error:
            click.echo(f"Error: {error}", err=True)
            return 1
        except OSError as error:
            click.echo(f"Error: the sidecar cannot be started: {error}", err=True)
            return 1
        try:
            process = await run_command(arguments, environment_of(workload))
        except OSError as error:
            click.echo(f"Error: {arguments[0]}: {error.strerror}", err=True)
            return 127
        keeping = asyncio.create_task(keep_running(sidecar))
        try:
            status = await process.wait()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        return 128 - status if status < 0 else status
    finally:
        await sidecar.stop()


async def keep_running(sidecar: Sidecar) -> None:
    """A sidecar that ends before its service is started again, at most every second at first, then less often."""
    pause = 1.0
    while sidecar.process is not None:
        began = time.monotonic()
        status = await sidecar.process.wait()
        click.echo(f"the sidecar ended with status {status}; it is started again in {pause:.0f} s", err=True)
        await asyncio.sleep(pause)
        pause = 1.0 if time.monotonic() - began > 60 else min(pause * 2, 30.0)
        try:
            await sidecar.start()
        except (OSError, subprocess.SubprocessError) as error:
            click.echo(f"the sidecar cannot be started: {error}", err=True)


def with_free_ports(workload: Workload) -> Workload:
    """The ports on loopback that the workload did not choose are free ones where the usual ones are taken."""
    proxy, admin = workload.proxy_port, workload.admin_port
    return dataclasses.replace(
        workload,
        proxy_port=free_port() if proxy == PROXY_PORT and not is_free("127.0.0.1", proxy) else proxy,
        admin_port=free_port() if admin == ADMIN_PORT and not is_free("127.0.0.1", admin) else admin,
    )
