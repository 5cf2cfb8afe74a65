"""The agent's figures over HTTP, on loopback: `/metrics` for Prometheus, `/ready` for who waits."""

from __future__ import annotations

from aiohttp import web

from controlplane.nodeagent.agent import Agent


class FiguresServer:
    """At ``host``:``port`` (0 for any): `start`, `port`, `stop`."""

    def __init__(self, agent: Agent, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._agent = agent
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError."""
        application = web.Application(client_max_size=1024)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._agent.metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})

    async def _ready(self, request: web.Request) -> web.Response:
        complaints = self._agent.complaints()
        if complaints:
            return web.Response(status=503, text="\n".join(complaints) + "\n")
        return web.Response(text=f"{len(self._agent.workloads)} workloads\n")
