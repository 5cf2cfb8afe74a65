"""The shop's identities: every service account joins by a token, and one node agent serves them to the sidecars."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click

from controlplane.cli.api import Api
from controlplane.cli.beside import end_with_parent
from controlplane.cli.identity import join
from controlplane.cli.workload import Workload

LIFETIME: Final = 3600.0
"""Seconds that the shop's certificates live; the agent renews them at half of that."""

SOCKET: Final = "agent.sock"
_PATIENCE: Final = 30.0


@asynccontextmanager
async def identities(directory: Path, api: Api, workloads: Sequence[Workload]) -> AsyncIterator[Path]:
    """Below the path that it gives, NAMESPACE/ACCOUNT/agent.sock are the sockets of a node agent that serves. Raises ApiError,
    and click.ClickException if the agent ends.
    """
    kept = directory / "identities"
    for namespace, account in dict.fromkeys((one.namespace, one.account) for one in workloads):
        body = {"namespace": namespace, "serviceAccount": account}
        token = await asyncio.to_thread(api.request, "POST", "/mizzen/v1/tokens", body)
        where = kept / namespace / account
        await asyncio.to_thread(join, api, token["token"], where, lifetime=LIFETIME)
    path = directory / "nodeagent.log"
    # The path of a socket has at most 107 bytes, and that of a demo's directory may be longer.
    with tempfile.TemporaryDirectory(prefix="mizzen-demo-") as sockets, path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controlplane.nodeagent", "--identities", str(kept), "--sockets", sockets,
            "--metrics-address", "", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        try:
            await _ready(process, path)
            yield Path(sockets)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _ready(process: asyncio.subprocess.Process, log: Path) -> None:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE):
            while not (line := await process.stdout.readline()).startswith(b"ready"):
                if not line:
                    raise click.ClickException(f"the node agent ended:\n{await _end_of(log)}")
    except TimeoutError:
        text = f"the node agent was not ready in {_PATIENCE:.0f} s:\n{await _end_of(log)}"
        raise click.ClickException(text) from None


async def _end_of(log: Path) -> str:
    return (await asyncio.to_thread(log.read_text))[-2000:]
