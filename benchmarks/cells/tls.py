"""TLS at saturation: requests over connections that stay, handshakes, and mutual TLS between two sidecars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks import certificates, handshakes
from benchmarks.agent import node_agent
from benchmarks.backends import BODY, nginx_backend
from benchmarks.cells import http, saturation
from benchmarks.cells.saturation import Work, alone
from benchmarks.context import Context
from benchmarks.load import FailedRequests, needs
from benchmarks.ports import NotReady, get
from benchmarks.processes import ProcessDied
from benchmarks.proxies import Running, counter, serving
from benchmarks.results import CPU, Better, Figure, Row, Target
from benchmarks.turns import all_serving

SPEED = Target("≥ 1.4 × Envoy", times_envoy=1.4)
HANDSHAKE_SPEED = Target("≥ 0.8 × Envoy", times_envoy=0.8)
MTLS_SPEED = Target("≥ 1.3 × Envoy", times_envoy=1.3)
HANDSHAKE_CPU = Figure("cpu_us", "us CPU/handshake", Better.LOWER)


def https_in(context: Context) -> list[Row]:
    """As `route-bare`, over TLS from the client to the proxy."""
    certificates.write(context.directory)
    return http.measure(context, "https-in", "https_in", target=SPEED, scheme="https")


def new_sessions(context: Context) -> list[Row]:
    """A connection, a full handshake and one request at a time."""
    return _handshakes(context, "handshakes", resumed=False)


def resumed_sessions(context: Context) -> list[Row]:
    """The same with the session of the connection before."""
    return _handshakes(context, "handshakes-resumed", resumed=True)


def _handshakes(context: Context, cell: str, *, resumed: bool) -> list[Row]:
    needs("openssl")
    certificates.write(context.directory)

    def load(running: Running, seconds: float) -> Work:
        count, took = handshakes.s_time(running, seconds=seconds, resumed=resumed)
        return Work(count, took)

    with (
        nginx_backend(context.directory) as backend,
        all_serving(context, "handshakes", backend.substitutions()) as proxies,
    ):
        return saturation.measure(context, cell, alone(proxies), load, HANDSHAKE_CPU, HANDSHAKE_SPEED)


def mtls(context: Context) -> list[Row]:
    """Client, sidecar, mutual TLS, sidecar, service: HTTP/1.1 outside, and HTTP/1.1 or HTTP/2 between the sidecars."""
    certificates.write(context.directory)
    rows = []
    for cell, protocol, alpn in (
        ("mtls-1", "http_protocol_options", "http/1.1"),
        ("mtls-2", "http2_protocol_options", "h2"),
    ):
        with _chains(context, {"protocol": protocol, "alpn": alpn}) as chains:
            rows += saturation.measure(context, cell, chains, http.wrk(), CPU, MTLS_SPEED)
    return rows


def mtls_sds(context: Context) -> list[Row]:
    """As `mtls`, with certificates from a node agent over a Unix socket, and SPIFFE validation."""
    certificates.write(context.directory)
    rows = []
    with node_agent(context.directory) as agent:
        for cell, protocol, alpn in (
            ("mtls-sds-1", "http_protocol_options", "http/1.1"),
            ("mtls-sds-2", "http2_protocol_options", "h2"),
        ):
            between = {"protocol": protocol, "alpn": alpn, "agent": str(agent)}
            with _chains(context, between, "mtls_sds") as chains:
                rows += saturation.measure(context, cell, chains, http.wrk(), CPU, MTLS_SPEED)
    return rows


@contextlib.contextmanager
def _chains(context: Context, between: dict[str, str], shape: str = "mtls") -> Iterator[dict[str, list[Running]]]:
    """The two sidecars of every proxy, the client's first."""
    with nginx_backend(context.directory) as backend, contextlib.ExitStack() as stack:
        chains = {}
        for proxy in context.supporting(f"{shape}_client"):
            try:
                beside = {**between, **backend.substitutions()}
                server = stack.enter_context(serving(proxy, f"{shape}_server", context.directory, beside))
                peer = {**between, "peer_port": str(server.port)}
                client = stack.enter_context(serving(proxy, f"{shape}_client", context.directory, peer))
                _check(client, between["alpn"])
            except (ProcessDied, NotReady, FailedRequests) as error:
                context.problem(f"{proxy.name} does not serve mutual TLS with {between['alpn']}: {error}")
            else:
                chains[proxy.name] = [client, server]
        yield chains


def _check(client: Running, alpn: str) -> None:
    """One response through both sidecars, over TLS and the protocol that was asked for. Raises FailedRequests."""
    body = get(client.port, "/")
    version = counter(client, "cluster.orders.upstream_cx_http2_total") + 1
    handshakes = counter(client, "cluster.orders.ssl.handshake")
    if body != BODY.encode() or handshakes != 1 or version != (2 if alpn == "h2" else 1):
        raise FailedRequests(f"{body[:100]!r} came over {handshakes} TLS connections and HTTP/{version}")
