"""What only some upstream requests do, in the whole sidecar: sessions with retries and hedging, and load reports wherever
they come, request after request of one form.
"""

from __future__ import annotations

import asyncio
import http.client
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.server import Server
from tests.sidecar.bootstraps import address, bootstrap, http_listener
from tests.sidecar.tls_bootstraps import run, until

Document = dict[str, Any]
POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies"
FILTER = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
HEADER = "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"
TRAILERS: Document = {"http_protocol_options": {"enable_trailers": True}}
WEIGHTED: Document = {
    "policies": [
        {
            "typed_extension_config": {
                "name": "policy",
                "typed_config": {
                    "@type": f"{POLICIES}.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
                    "blackout_period": "0s",
                    "weight_update_period": "0.1s",
                },
            }
        }
    ]
}


class Script:
    """A web server that answers as it is told: with these fields before or behind the body, or not at all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fields = self.trailers = ""
        self.silent = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if self.silent:
                    await reader.read()
                    break
                size = f"{len(self.name):x}\r\n{self.name}\r\n0\r\n{self.trailers}\r\n"
                body = size if self.trailers else self.name
                framing = "transfer-encoding: chunked" if self.trailers else f"content-length: {len(self.name)}"
                writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n{self.fields}\r\n{body}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def scripts(*names: str) -> AsyncIterator[list[Script]]:
    made, servers = [Script(name) for name in names], []
    for script in made:
        server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
        script.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield made
    finally:
        for server in servers:
            server.close()


def cluster(hosts: list[Script], **fields: Any) -> Document:
    endpoints = [{"endpoint": {"address": address(host.port)}} for host in hosts]
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": "up", "type": "STATIC", "load_assignment": assignment, **fields}


def weights(server: Server) -> list[int]:
    assert server.stack is not None
    found = server.stack.clusters.get("up")
    assert found is not None
    return [host.weight for host in found.hosts]


async def answers(server: Server, times: int, **headers: str) -> Counter[str]:
    def ask() -> Counter[str]:
        connection = http.client.HTTPConnection(*server.address("one"), timeout=5)
        got: Counter[str] = Counter()
        for _ in range(times):
            connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            text = response.read().decode()
            got[text if response.status == 200 else str(response.status)] += 1
        connection.close()
        return got

    return await asyncio.to_thread(ask)


def route(**fields: Any) -> Document:
    return {"match": {"prefix": "/"}, "route": {"cluster": "up", **fields}}


def report(rate: int) -> str:
    return f"endpoint-load-metrics: TEXT cpu_utilization=1,rps_fractional={rate}\r\n"


@pytest.mark.parametrize("where", ["fields", "trailers"])
def test_reports_are_heard_request_after_request(where: str) -> None:
    async def main() -> None:
        async with scripts("a", "b") as (first, second):
            made = cluster([first, second], load_balancing_policy=WEIGHTED, **TRAILERS)
            async with Server(bootstrap(http_listener("one", 0, [route()]), clusters=(made,))) as server:
                for rates in ((10, 30), (60, 20)):
                    for script, rate in zip((first, second), rates, strict=True):
                        setattr(script, where, report(rate))
                    await answers(server, 20)
                    await until(lambda rates=rates: weights(server) == list(rates))
                    got = await answers(server, 80)
                    assert got["a"] == pytest.approx(80 * rates[0] / sum(rates), abs=2)

    run(main())


def test_what_a_header_says_goes_before_what_a_trailer_says() -> None:
    async def main() -> None:
        async with scripts("a", "b") as (first, second):
            first.fields, first.trailers, second.fields = report(50), report(70), report(20)
            made = cluster([first, second], load_balancing_policy=WEIGHTED, **TRAILERS)
            async with Server(bootstrap(http_listener("one", 0, [route()]), clusters=(made,))) as server:
                await answers(server, 20)
                await until(lambda: weights(server) == [50, 20])

    run(main())


def session(strict: bool) -> Document:
    state = {"name": "envoy.http.stateful_session.header", "typed_config": {"@type": HEADER, "name": "x-session"}}
    return {
        "name": "envoy.filters.http.stateful_session",
        "typed_config": {"@type": FILTER, "session_state": state, "strict": strict},
    }


ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {
            "retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.1s"},
            "hedge_policy": {"hedge_on_per_try_timeout": True},
        },
        {"internal_redirect_policy": {}},
    ],
    ids=["plain", "hedged", "redirected"],
)
def test_sessions_hold_with_every_kind_of_upstream_request(kind: Document, strict: bool) -> None:
    async def main() -> None:
        async with scripts("a", "b", "c") as hosts:
            listener = http_listener("one", 0, [route(**kind)], http_filters=[session(strict), ROUTER])
            async with Server(bootstrap(listener, clusters=(cluster(hosts),))) as server:
                for host in hosts:
                    wanted = b64encode(b"127.0.0.1:%d" % host.port).decode()
                    assert await answers(server, 10, x_session=wanted) == {host.name: 10}
                assert set(await answers(server, 12)) == {"a", "b", "c"}
                gone = b64encode(b"127.0.0.1:1").decode()
                assert set(await answers(server, 12, x_session=gone)) == ({"503"} if strict else {"a", "b", "c"})

    run(main())


@pytest.mark.parametrize("hedged", [False, True])
def test_another_attempt_goes_to_another_host_than_the_session_s(hedged: bool) -> None:
    """As in Envoy: what the session asks for holds for the first attempt."""

    async def main() -> None:
        async with scripts("a", "b") as (first, second):
            first.silent = True
            fields = {"retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.05s", "num_retries": 9}}
            if hedged:
                fields["hedge_policy"] = {"hedge_on_per_try_timeout": True}
            listener = http_listener("one", 0, [route(**fields)], http_filters=[session(True), ROUTER])
            async with Server(bootstrap(listener, clusters=(cluster([first, second]),))) as server:
                wanted = b64encode(b"127.0.0.1:%d" % first.port).decode()
                assert await answers(server, 2, x_session=wanted) == {"b": 2}

    run(main())
