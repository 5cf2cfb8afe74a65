"""Which filter chain takes a connection, asked of real Envoy and of ours: same listeners, same bytes."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.address import CidrRange
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.config.listener import FilterChain
from sidecar.config.listener_filters import ListenerFilter, ProxyProtocol, TlsInspector
from sidecar.core.worker import Worker
from sidecar.network.direct_response import DirectResponse
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.listener.serving import Served, chain, config, run
from tests.sidecar.listener.test_client_hello import real_hello

TYPES = "type.googleapis.com/envoy.extensions.filters."
LISTENERS = 24
CONNECTIONS = 14
DESTINATIONS = ("10.1.1.1", "10.1.2.2", "10.2.2.2", "127.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1")
SOURCES = ("10.1.1.1", "10.9.9.9", "127.0.0.1", "198.51.100.1", "fd00::1", "::1")
RANGES: tuple[CidrRange, ...] = tuple(
    map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8", "fd00::/8", "::1/128"))
)
NAMES = ("a.example.com", ".example.com", ".com", "b.example.com")
HELLOS = [
    real_hello(name, protocols)
    for name in (None, "a.example.com", "x.y.example.com", "other.com", "org.org")
    for protocols in ([], ["h2"], ["http/1.1", "h2"], ["spdy"])
]


def _some(choose: random.Random, values: Any) -> tuple[Any, ...]:
    return tuple(choose.sample(values, choose.choice((0, 0, 1, 2))))


def _random_match(choose: random.Random) -> FilterChainMatch:
    return FilterChainMatch(
        destination_port=choose.choice((None, None, 80, 443)),
        prefix_ranges=_some(choose, RANGES),
        direct_source_prefix_ranges=_some(choose, (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))),
        source_type=choose.choice(("ANY", "ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL")),
        source_prefix_ranges=_some(choose, RANGES),
        source_ports=_some(choose, (1000, 2000)),
        server_names=_some(choose, NAMES),
        transport_protocol=choose.choice(("", "", "tls", "raw_buffer")),
        application_protocols=_some(choose, ("h2", "http/1.1")),
    )


def _random_chains(seed: int) -> list[FilterChain]:
    """Chains of which no two want the same connections: such a listener Envoy refuses."""
    choose, chains = random.Random(seed), []
    taken: set[tuple[object, ...]] = set()
    for number in range(choose.randrange(1, 9)):
        match = _random_match(choose)
        keys = set(
            product(
                (match.destination_port,),
                match.prefix_ranges or (None,),
                match.server_names or ("",),
                (match.transport_protocol,),
                match.application_protocols or ("",),
                match.direct_source_prefix_ranges or (None,),
                (match.source_type,),
                match.source_prefix_ranges or (None,),
                match.source_ports or (None,),
            )
        )
        if not keys & taken:
            taken |= keys
            chains.append(chain(f"chain {number}", filter_chain_match=match))
    return chains


def _random_connections(seed: int) -> list[bytes]:
    choose, connections = random.Random(seed), []
    for _ in range(CONNECTIONS):
        destination = choose.choice(DESTINATIONS)
        source = choose.choice([one for one in SOURCES if (":" in one) == (":" in destination)])
        family = "TCP6" if ":" in destination else "TCP4"
        ports = f"{choose.choice((1000, 3000))} {choose.choice((80, 443, 8080))}"
        header = f"PROXY {family} {source} {destination} {ports}\r\n".encode()
        connections.append(header + (choose.choice(HELLOS) if choose.random() < 0.7 else b"plain text\r\n"))
    return connections


def _ranges_json(ranges: tuple[CidrRange, ...]) -> list[dict[str, Any]]:
    return [{"address_prefix": str(one.network_address), "prefix_len": one.prefixlen} for one in ranges]


def _chain_json(chain: FilterChain) -> dict[str, Any]:
    match = chain.filter_chain_match
    own: dict[str, Any] = {
        "prefix_ranges": _ranges_json(match.prefix_ranges),
        "direct_source_prefix_ranges": _ranges_json(match.direct_source_prefix_ranges),
        "source_type": match.source_type,
        "source_prefix_ranges": _ranges_json(match.source_prefix_ranges),
        "source_ports": match.source_ports,
        "server_names": [f"*{name}" if name.startswith(".") else name for name in match.server_names],
        "transport_protocol": match.transport_protocol,
        "application_protocols": match.application_protocols,
    }
    if match.destination_port is not None:
        own["destination_port"] = match.destination_port
    response = {
        "@type": TYPES + "network.direct_response.v3.Config",
        "response": {"inline_string": f"{chain.name}"},
    }
    return {"name": chain.name, "filter_chain_match": own, "filters": [{"name": "d", "typed_config": response}]}


def _listener_json(name: str, chains: list[FilterChain]) -> dict[str, Any]:
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [
            {"name": "p", "typed_config": {"@type": TYPES + "listener.proxy_protocol.v3.ProxyProtocol"}},
            {"name": "t", "typed_config": {"@type": TYPES + "listener.tls_inspector.v3.TlsInspector"}},
        ],
        "filter_chains": [_chain_json(one) for one in chains],
    }


@contextmanager
def _envoy(directory: Path, listeners: list[dict[str, Any]]) -> Iterator[dict[str, int]]:
    """A running Envoy; the ports of its listeners by their names."""
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": listeners},
    }
    file, admin, log = directory / "envoy.json", directory / "admin", directory / "log"
    file.write_text(json.dumps(bootstrap))
    arguments = [envoy_binary(), "-c", str(file), "--concurrency", "1", "--admin-address-path", str(admin),
                 "--base-id", str(random.SystemRandom().randrange(1, 1 << 28)), "--log-path", str(log)]  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _ports(process, admin, log, len(listeners))
    finally:
        process.kill()
        process.wait()


def _ports(process: subprocess.Popen[bytes], admin: Path, log: Path, count: int) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        if admin.exists() and (address := admin.read_text()):
            with urllib.request.urlopen(f"http://{address}/listeners?format=json", timeout=5) as answer:
                found = json.load(answer).get("listener_statuses", ())
            if len(found) == count:
                return {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found}
        time.sleep(0.02)
    raise AssertionError(f"Envoy is not ready: {log.read_text()[-2000:]}")


def _answer(port: int, data: bytes) -> str:
    """What a listener says to these bytes, empty if it closes without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(data)
        received = b""
        try:
            while piece := sock.recv(4096):
                received += piece
        except ConnectionResetError:
            pass  # after the answer: not all that was sent had been read
        return received.decode()


def _ours(cases: list[tuple[list[FilterChain], list[bytes]]]) -> list[str]:
    answers: list[str] = []
    filters = (ListenerFilter("p", ProxyProtocol()), ListenerFilter("t", TlsInspector()))

    async def main() -> None:
        worker = Worker(asyncio.get_running_loop())

        def build(chain: FilterChain, *_: object) -> DirectResponse:
            return DirectResponse(chain.name.encode(), worker)

        for chains, connections in cases:
            served = Served(config(*chains, listener_filters=filters), worker, build_terminal=build).start()
            port = served.listener.local_addresses[0].port
            loop = asyncio.get_running_loop()
            for data in connections:
                answers.append(await loop.run_in_executor(None, _answer, port, data))  # noqa: PERF401
            served.listener.close()

    run(main, 60)
    return answers


def test_random_listeners_choose_as_envoy_does(tmp_path: Path) -> None:
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"no real Envoy: {error}")
    cases = [(_random_chains(seed), _random_connections(seed)) for seed in range(LISTENERS)]
    theirs = []
    with _envoy(tmp_path, [_listener_json(str(at), chains) for at, (chains, _) in enumerate(cases)]) as ports:
        for at, (_, connections) in enumerate(cases):
            theirs += [_answer(ports[str(at)], data) for data in connections]
    assert _ours(cases) == theirs
    assert len(theirs) == LISTENERS * CONNECTIONS
    assert len(set(theirs)) > 5
