"""`mizzen demo`: a control plane, a book shop with a sidecar beside each of its services, traffic, and a table of it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import signal
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controlplane.cli.api import Api, ApiError
from controlplane.cli.beside import Sidecar, SidecarFailed, ask, end_with_parent, environment_of, free_port, is_free
from controlplane.cli.bookshop.application import PORT
from controlplane.cli.bookshop.figures import Counted, Row, Way, merged, read, rows
from controlplane.cli.bookshop.identities import SOCKET, identities
from controlplane.cli.documents import read_documents
from controlplane.cli.kubeconfig import FILE, default_data_dir, find_access
from controlplane.cli.own_directory import emptied
from controlplane.cli.workload import Discovery, Workload, bootstrap_document, ensure_resources

NAMESPACE: Final = "shop"
SERVICES: Final = (
    ("page", "v1"), ("details", "v1"), ("reviews", "v1"), ("reviews", "v2"), ("reviews", "v3"), ("ratings", "v1"),
)  # fmt: skip
TO_TRY: Final = (
    "reviews-90-10.yaml", "reviews-by-user.yaml", "ratings-delay.yaml", "ratings-abort.yaml", "strict.yaml",
    "only-page.yaml", "tokens.yaml",
)  # fmt: skip
USERS: Final = ("ada", "grace", "linus", "")  # the last one has not signed in


@click.command()
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Where the demo keeps its state: a new directory, an empty one, or a demo's, which is emptied.",
)
@click.option("--rate", type=click.FloatRange(0.1, 500), default=20.0, show_default=True, help="Page views a second.")
@click.option("--duration", type=float, metavar="SECONDS", help="End by itself. [default: at Ctrl-C]")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--plain", is_flag=True, help="Print the table again and again instead of drawing it.")
def command(data_dir: str | None, rate: float, duration: float | None, interval: float, plain: bool) -> None:
    """Start a whole mesh on this machine, with a small shop in it, and watch it.

    Everything is real: a control plane, six services with a sidecar each, and Istio's resources, which can be changed while
    it runs. Ctrl-C ends all of it.
    """
    directory = Path(data_dir) if data_dir else default_data_dir() / "demo"
    console = Console()
    try:
        asyncio.run(Demo(directory, console, rate, interval, plain or not console.is_terminal).run(duration))
    except SidecarFailed as error:
        raise click.ClickException(str(error)) from error


class Demo:
    """All of it, as child processes that end with it."""

    def __init__(self, directory: Path, console: Console, rate: float, interval: float, plain: bool) -> None:
        self.directory = directory
        self.console = console
        self.rate = rate
        self.interval = interval
        self.plain = plain
        network = _free_network()
        self.workloads = [_workload(f"{network}.{number}", *one) for number, one in enumerate(SERVICES, 1)]
        self.stopped = asyncio.Event()
        self.views = 0
        self.failed_views = 0

    async def run(self, duration: float | None) -> None:
        """Start, show, and end everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stopped.set)
        with emptied(self.directory):
            async with AsyncExitStack() as stack:
                api = await stack.enter_async_context(self._control_plane())
                starting = asyncio.create_task(self._start(stack, api))
                stopping = asyncio.create_task(self.stopped.wait())
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
                else:
                    starting.result()
                    api.close()
                    self._say_what_to_try()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(duration):
                            await self._traffic_and_table()
                stopping.cancel()
                self.console.print("Stopping ...")

    @asynccontextmanager
    async def _control_plane(self) -> AsyncIterator[Api]:
        log = (self.directory / "controlplane.log").open("wb")
        api_port, xds_port, secure_port = free_port(), free_port(), free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controlplane", "--data-dir", str(self.directory),
            "--api-address", f"127.0.0.1:{api_port}", "--xds-address", f"127.0.0.1:{xds_port}",
            "--secure-xds-address", f"127.0.0.1:{secure_port}",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        try:
            self.xds_address = f"127.0.0.1:{secure_port}"
            yield await self._reach(process)
        finally:
            await _end(process)
            log.close()

    async def _reach(self, process: asyncio.subprocess.Process) -> Api:
        self.console.print("Starting the control plane ...")
        until = time.monotonic() + 30
        while not self.stopped.is_set():
            if process.returncode is not None:
                log = (self.directory / "controlplane.log").read_text()[-2000:]
                raise click.ClickException(f"the control plane ended with status {process.returncode}:\n{log}")
            if (self.directory / FILE).exists():
                api = Api(find_access(str(self.directory)))
                try:
                    await asyncio.to_thread(api.request, "GET", "/mizzen/v1/addresses")
                    return api
                except ApiError:
                    if time.monotonic() > until:
                        raise
            if time.monotonic() > until:
                raise click.ClickException("the control plane did not answer in 30 s")
            await asyncio.sleep(0.05)
        raise click.Abort

    async def _start(self, stack: AsyncExitStack, api: Api) -> None:
        self.console.print(f"Starting {len(self.workloads)} services, each with a sidecar ...")
        for workload in self.workloads:
            await asyncio.to_thread(ensure_resources, api, workload)
        for kind, document in read_documents([str(resources() / name) for name in ("subsets.yaml", "reviews-v1.yaml")]):
            await asyncio.to_thread(api.apply, kind, document)
        sockets = await stack.enter_async_context(identities(self.directory, api, self.workloads))
        sidecars = []
        for one in self.workloads:
            discovery = Discovery(self.xds_address, agent=str(sockets / NAMESPACE / one.account / SOCKET))
            log = self.directory / f"{one.group}.log"
            sidecars.append(Sidecar(one, bootstrap_document(one, discovery), drain=1, log=log))
        for sidecar in sidecars:
            stack.push_async_callback(sidecar.stop)
            await sidecar.start()
        for workload in self.workloads:
            await stack.enter_async_context(_application(workload, self.directory))
        await asyncio.gather(*(sidecar.wait_ready(60) for sidecar in sidecars))
        await self._first_view()

    async def _first_view(self) -> None:
        """The shop is open when a page comes."""
        page = self.workloads[0]
        until = time.monotonic() + 30
        while b" 200 " not in (answer := await ask(page.address, page.port, "/", timeout=5))[:16]:
            if time.monotonic() > until:
                raise SidecarFailed(f"the page does not come: {answer[-300:].decode('latin-1')}")
            await asyncio.sleep(0.1)

    def _say_what_to_try(self) -> None:
        page = self.workloads[0]
        where = "" if self.directory == default_data_dir() / "demo" else f"--data-dir {self.directory} "
        below = resources()
        self.console.print(
            f"\nThe shop is open: http://{page.address}:{page.port}/. In another terminal, change its routes and its rules:\n"
            + "".join(f"  mizzen apply {where}-f {below / name}\n" for name in TO_TRY)
            + f"  mizzen explain {where}--from shop/ratings --to reviews GET /reviews/0\n"
            f"  mizzen certs {where}\n"
            f"  kubectl --kubeconfig {self.directory / FILE} -n {NAMESPACE} get virtualservices\n"
            "Ctrl-C ends everything.\n",
            highlight=False,
            soft_wrap=True,
        )

    async def _traffic_and_table(self) -> None:
        visiting = asyncio.create_task(self._visit())
        showing = asyncio.create_task(self._show())
        stopping = asyncio.create_task(self.stopped.wait())
        try:
            done, _ = await asyncio.wait((visiting, showing, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (visiting, showing, stopping):
                task.cancel()
            await asyncio.gather(visiting, showing, stopping, return_exceptions=True)

    async def _visit(self) -> None:
        """Page views at a steady rate, whatever becomes of them."""
        page = self.workloads[0]
        under_way: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as client:
            loop = asyncio.get_running_loop()
            due = loop.time()
            try:
                while True:
                    task = asyncio.create_task(self._view(client, f"http://{page.address}:{page.port}/"))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    due += 1 / self.rate
                    await asyncio.sleep(max(0.0, due - loop.time()))
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _view(self, client: aiohttp.ClientSession, url: str) -> None:
        user = USERS[self.views % len(USERS)]
        self.views += 1
        try:
            async with client.get(url, headers={"end-user": user} if user else {}) as response:
                await response.read()
                failed = response.status >= 500
        except (aiohttp.ClientError, TimeoutError):
            failed = True
        self.failed_views += failed

    async def _show(self) -> None:
        before, then = await self._look(), time.monotonic()
        with contextlib.ExitStack() as stack:
            live = None if self.plain else stack.enter_context(Live(console=self.console, auto_refresh=False))
            while True:
                await asyncio.sleep(self.interval)
                now, moment = await self._look(), time.monotonic()
                drawn = self._table(rows(now, before, moment - then))
                before, then = now, moment
                if live is None:
                    self.console.print(drawn)
                else:
                    live.update(drawn, refresh=True)

    async def _look(self) -> dict[Way, Counted]:
        pages = await asyncio.gather(*(ask("127.0.0.1", one.admin_port, "/stats/prometheus") for one in self.workloads))
        return merged(
            read(f"{one.service} {one.version}", page.decode("utf-8", "replace"))
            for one, page in zip(self.workloads, pages, strict=True)
        )

    def _table(self, found: Sequence[Row]) -> Group:
        table = Table(title="who calls whom, by the sidecars' statistics", title_justify="left")
        for name in ("from", "to"):
            table.add_column(name, no_wrap=True)
        table.add_column("mTLS", no_wrap=True)
        for name in ("requests/s", "failed", "p50 ms", "p99 ms"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in found:
            table.add_row(
                row.source or "(arriving)",
                row.destination,
                {None: "-", True: "yes", False: "no"}[row.encrypted],
                f"{row.rate:.1f}",
                Text(f"{row.failed:.0%}", style="red" if row.failed else ""),
                *("-" if time_ is None else f"{time_:.1f}" for time_ in (row.p50, row.p99)),
            )
        return Group(table, Text(f"{self.views} page views, {self.failed_views} failed"))


def _free_network() -> str:
    """The first of the networks 127.0.1, 127.0.2, ... in which no address of the shop is taken."""
    for third in range(1, 255):
        network = f"127.0.{third}"
        if all(is_free(f"{network}.{number}", PORT) for number in range(1, len(SERVICES) + 1)):
            return network
    raise click.ClickException(f"port {PORT} is taken on every loopback address: end what listens there")


def _workload(address: str, service: str, version: str) -> Workload:
    return Workload(
        service=service,
        namespace=NAMESPACE,
        address=address,
        port=PORT,
        app=f"127.0.0.1:{free_port()}",
        version=version,
        proxy_port=free_port(),
        admin_port=free_port(),
    )


@asynccontextmanager
async def _application(workload: Workload, directory: Path) -> AsyncIterator[None]:
    log = (directory / f"{workload.group}-application.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controlplane.cli.bookshop.application", workload.service, workload.version, workload.app,
        env=environment_of(workload), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        yield
    finally:
        await _end(process)
        log.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def resources() -> Path:
    """Where the shop's resources are: beside an installed Mizzen, or in a checkout."""
    installed = Path(sysconfig.get_path("data")) / "share" / "mizzen" / "bookshop"
    if installed.is_dir():
        return installed
    checkout = Path(str(importlib.resources.files("controlplane"))).parent / "examples" / "bookshop"
    if checkout.is_dir():
        return checkout
    raise click.ClickException(
        f"the shop's resources are neither in {installed} nor in {checkout}: install Mizzen again"
    )
