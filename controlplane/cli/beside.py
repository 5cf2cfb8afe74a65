"""A sidecar as a child process, and the command that it stands beside."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from controlplane.cli.workload import Workload
from controlplane.nodeagent.identity_directory import write_private

_LIBC = ctypes.CDLL(None)  # before any fork, where nothing may be loaded
_PR_SET_PDEATHSIG = 1


class SidecarFailed(Exception):
    """The sidecar ended, or did not become ready in time; the message has the end of what it printed."""


class Sidecar:
    """`python -m sidecar` on a bootstrap document, in a process of its own.

    It leads no process group of the terminal's, so that Ctrl-C reaches the command first and the sidecar last.
    """

    def __init__(
        self, workload: Workload, document: Mapping[str, Any], *, drain: float, log: Path | None = None
    ) -> None:
        self.workload = workload
        self.drain = drain
        self._document = document
        self._directory: Path | None = None
        self._log_elsewhere = log
        self._log: IO[bytes] | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, for the first time or again; returns before it is ready. Raises OSError."""
        if self._directory is None or not _is_ours(self._directory):
            self._directory = Path(tempfile.mkdtemp(prefix="mizzen-"))
        config = self._directory / "sidecar.json"
        write_private(config, json.dumps(self._document).encode())
        if self._log is not None:
            self._log.close()
            self._log = None
        self._log = self._log_path.open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "--config", str(config), "--drain-time-s", str(max(1, round(self.drain))),
            stdin=asyncio.subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
            preexec_fn=end_with_parent,
        )  # fmt: skip

    async def wait_ready(self, timeout: float) -> None:
        """Return when it listens for the workload and for the program beside it. Raises SidecarFailed."""
        assert self.process is not None
        try:
            async with asyncio.timeout(timeout):
                while not (await self._says_ready() and await self._listens()):
                    if self.process.returncode is not None:
                        raise SidecarFailed(
                            f"the sidecar ended with status {self.process.returncode}:\n{self.end_of_log()}"
                        )
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise SidecarFailed(
                f"the sidecar of {self.workload.service} was not ready in {timeout:.0f} s: has it got its configuration?\n"
                + self.end_of_log()
            ) from None

    async def _says_ready(self) -> bool:
        return b" 200 " in (await ask("127.0.0.1", self.workload.admin_port, "/ready"))[:16]

    async def _listens(self) -> bool:
        text = await ask("127.0.0.1", self.workload.admin_port, "/listeners")
        wanted = (f"{self.workload.address}:{self.workload.port}", f":{self.workload.proxy_port}")
        return all(one.encode() in text for one in wanted)

    @property
    def _log_path(self) -> Path:
        assert self._directory is not None
        return self._log_elsewhere or self._directory / "sidecar.log"

    def end_of_log(self) -> str:
        """The last lines that it printed."""
        try:
            return self._log_path.read_text(errors="replace")[-2000:]
        except OSError:
            return ""

    async def stop(self) -> None:
        """Drain and end it; it is killed if the drain takes longer than it may."""
        process = self.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self.drain + 5):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self.close()

    def close(self) -> None:
        """Remove what it needed on disk."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._directory is not None and _is_ours(self._directory):
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None


def _is_ours(directory: Path) -> bool:
    """Whether it is there, and ours: what cleans /tmp takes what is old, and its name is then free for anybody."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def end_with_parent() -> None:
    """In a child before it becomes its program: it gets SIGTERM when its parent dies, however that comes about."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


async def ask(host: str, port: int, path: str, timeout: float = 2.0) -> bytes:
    """A GET of an administration interface: the whole response, head included; empty if there is none."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def environment_of(workload: Workload) -> dict[str, str]:
    """The environment of a program beside a sidecar: whoever honours HTTP_PROXY reaches services by their names."""
    proxy = f"http://127.0.0.1:{workload.proxy_port}"
    direct = os.environ.get("NO_PROXY", os.environ.get("no_proxy", ""))
    ours = "127.0.0.1,localhost,::1"
    no_proxy = f"{direct},{ours}" if direct else ours
    return {**os.environ, "HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


async def run_command(command: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a program that gets the signals that we get. Raises OSError if it cannot be started."""
    started: list[asyncio.subprocess.Process] = []
    early: list[signal.Signals] = []

    def pass_on(number: signal.Signals) -> None:
        if number == signal.SIGINT and os.isatty(0):
            return  # Ctrl-C in a terminal reaches the whole process group, the program too; it need not be told twice
        if not started:
            early.append(number)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    on_signals(pass_on)
    started.append(await asyncio.create_subprocess_exec(*command, env=dict(environment)))
    for number in early:
        pass_on(number)
    return started[0]


def on_signals(call: Callable[[signal.Signals], None]) -> None:
    """From now on the loop calls this for every signal that a program may be sent, and nothing else comes of them."""
    loop = asyncio.get_running_loop()
    for number in (
        signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    ):  # fmt: skip
        loop.add_signal_handler(number, call, number)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(address: str, port: int) -> bool:
    """Whether nothing listens on a TCP port."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
