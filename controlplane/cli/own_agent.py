"""A node agent within `mizzen run`, for the one workload that it runs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from controlplane.nodeagent.agent import Agent


@asynccontextmanager
async def own_agent(namespace: str, service_account: str, directory: Path) -> AsyncIterator[Path]:
    """The socket at which the identity in ``directory`` (an absolute path) is served and renewed. Raises click.ClickException if
    it is none, or somebody else's.
    """
    with tempfile.TemporaryDirectory(prefix="mizzen-agent-") as place:
        identities, sockets = Path(place) / "identities", Path(place) / "sockets"
        (identities / namespace).mkdir(parents=True)
        (identities / namespace / service_account).symlink_to(directory, target_is_directory=True)
        agent = Agent(identities, sockets)
        running: asyncio.Task[None] | None = None
        try:
            await agent.start()
            if agent.bad or not agent.workloads:
                why = "; ".join(agent.bad.values()) or f"{directory} has no identity: give a --token for a new one"
                raise click.ClickException(why)
            running = asyncio.create_task(agent.run())
            yield sockets / namespace / service_account / "agent.sock"
        finally:
            if running is not None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await agent.stop()
