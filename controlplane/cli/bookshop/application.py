"""One service of the book shop: `python -m controlplane.cli.bookshop.application SERVICE VERSION HOST:PORT`.

It knows nothing of a mesh: it calls `http://details:9080/...`, and honours HTTP_PROXY. Headers that belong to a request
as a whole (its id, its trace, who the user is) are passed on, which is all that a mesh asks of a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any, Final

import aiohttp
from aiohttp import web

PORT: Final = 9080
_PASSED_ON: Final = ("x-request-id", "traceparent", "tracestate", "end-user", "user-agent")
_STARS: Final = {"v2": "black", "v3": "red"}
_CLIENT: Final = web.AppKey("client", aiohttp.ClientSession)


def application(service: str, version: str) -> web.Application:
    """The service's web application."""
    app = web.Application()
    app.cleanup_ctx.append(_client)
    handler = {"page": _page, "details": _details, "reviews": _reviews, "ratings": _ratings}[service]

    async def handle(request: web.Request) -> web.Response:
        return await handler(request, version)

    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/{rest:.*}", handle)
    return app


async def _client(app: web.Application) -> Any:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(trust_env=True, timeout=timeout) as session:
        app[_CLIENT] = session
        yield


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _call(request: web.Request, url: str) -> dict[str, Any]:
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    try:
        async with request.app[_CLIENT].get(url, headers=headers) as response:
            if response.status != 200:
                return {"error": f"{response.status} {(await response.text())[:80]}"}
            answer: dict[str, Any] = await response.json()
            return answer
    except (aiohttp.ClientError, TimeoutError) as error:
        return {"error": str(error) or type(error).__name__}


async def _page(request: web.Request, version: str) -> web.Response:
    details, reviews = await asyncio.gather(
        _call(request, f"http://details:{PORT}/details/0"), _call(request, f"http://reviews:{PORT}/reviews/0")
    )
    status = 503 if "error" in details and "error" in reviews else 200
    return web.json_response({"book": details, "reviews": reviews}, status=status)


async def _details(request: web.Request, version: str) -> web.Response:
    return web.json_response({"title": "The Lee Shore", "author": "N. Fathom", "year": 1911, "pages": 212})


async def _reviews(request: web.Request, version: str) -> web.Response:
    found: dict[str, Any] = {"version": version, "texts": ["A fair wind throughout.", "I could not put it down."]}
    if version in _STARS:
        found["ratings"] = await _call(request, f"http://ratings:{PORT}/ratings/0")
        found["color"] = _STARS[version]
    return web.json_response(found)


async def _ratings(request: web.Request, version: str) -> web.Response:
    return web.json_response({"stars": [5, 4]})


async def serve(service: str, version: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    runner = web.AppRunner(application(service, version), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, shutdown_timeout=2).start()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    """The command line."""
    service, version, address = sys.argv[1:4]
    host, _, port = address.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(service, version, host, int(port)))


if __name__ == "__main__":
    main()
