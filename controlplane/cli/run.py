"""`mizzen run`: a service and its sidecar as one thing that starts and ends together."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import time
from pathlib import Path
from typing import Any

import click

from controlplane.cli.beside import Sidecar, SidecarFailed, environment_of, free_port, is_free, on_signals, run_command
from controlplane.cli.identity import keep_renewed
from controlplane.cli.options import access_options, connect, discovery_of, workload_of, workload_options
from controlplane.cli.workload import ADMIN_PORT, PROXY_PORT, Discovery, Workload, bootstrap_document, ensure_resources


@click.command(context_settings={"ignore_unknown_options": True})
@access_options
@workload_options
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
    ready_timeout: float,
    drain_time: float,
    arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Run a service with its sidecar beside it: mizzen run OPTIONS -- COMMAND ARGUMENTS...

    The command starts when the sidecar is ready, with HTTP_PROXY set so that it reaches other services by their names.
    It gets the signals that this gets. When it has ended the sidecar drains, and its status is returned.
    """
    workload = with_free_ports(workload_of(**options))
    api = connect(data_dir, kubeconfig)
    workload = ensure_resources(api, workload)
    discovery = discovery_of(api, workload, xds_address, token, identity_dir)
    api.close()
    raise SystemExit(asyncio.run(run(workload, discovery, api.access.server, arguments, ready_timeout, drain_time)))


async def run(
    workload: Workload,
    discovery: Discovery,
    server: str,
    arguments: tuple[str, ...],
    ready_timeout: float,
    drain_time: float,
) -> int:
    """Start the sidecar, then the command; the command's exit status, 128 and the number for a signal. ``server`` renews the
    workload's certificate.
    """
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
        keeping = [asyncio.create_task(keep_running(sidecar))]
        if discovery.chain:
            renewing = keep_renewed(server, discovery.authority, Path(discovery.chain).parent)
            keeping.append(asyncio.create_task(renewing))
        try:
            status = await process.wait()
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
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
