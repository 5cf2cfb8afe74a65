"""Floods of clients that never come to the end of a handshake, at mutual TLS and where plaintext is let in beside it."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.bystander import Memory
from tests.differential.proxies import FreePorts, Proxy, start
from tests.grpc.subjects import KINDS, skip_unless_available
from tests.running import until
from tests.sidecar.bootstraps import address, direct, http_listener
from tests.sidecar.tls_bootstraps import mutual
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, client_hello

COUNT = 1000
LIFE = 2.0
"""Seconds that a client has for its handshake, and for the first bytes by which the inspector knows it."""
SLOWEST = 1.5
"""Seconds that a good client's request with its handshake may take meanwhile, on a machine that others use, too."""
TYPES = "type.googleapis.com/envoy.extensions."
HELLO = client_hello()


class Flood:
    """So many connections, each of which does the same little. A context manager."""

    def __init__(self, port: int) -> None:
        self.sockets: list[socket.socket] = []
        for _ in range(COUNT):
            made = socket.create_connection(("127.0.0.1", port), timeout=10)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sockets.append(made)

    def say(self, data: bytes) -> None:
        for one in self.sockets:
            with suppress(OSError):  # the proxy may have had enough
                one.sendall(data)

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()


def silent(_: Flood) -> None:
    """They say nothing at all."""


def half_a_hello(flood: Flood) -> None:
    flood.say(HELLO[: len(HELLO) // 2])


def a_hello_and_no_more(flood: Flood) -> None:
    flood.say(HELLO)


def byte_by_byte(flood: Flood) -> None:
    """One byte of the hello, and the next one after all others have sent theirs."""
    began = time.monotonic()
    for byte in HELLO:
        flood.say(bytes((byte,)))
        if time.monotonic() - began > LIFE / 2:
            return


def not_a_handshake(flood: Flood) -> None:
    flood.say(b"\x16\x03\x01\xff\xff" + bytes(200))


class Good:
    """A client with a certificate that comes anew for each request. A context manager that asserts that all were answered."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        self.context.check_hostname = False
        self.context.load_cert_chain(*CLIENT.write(directory, "good"))
        self.took: list[float] = []
        self.failures: list[object] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.005) and not self.failures:
            began = time.monotonic()
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
                    self.context.wrap_socket(plain) as wrapped,
                ):
                    wrapped.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    found = wrapped.recv(12)
                    if found != b"HTTP/1.1 200":
                        self.failures.append(found)
            except OSError as error:
                self.failures.append(error)
            self.took.append(time.monotonic() - began)

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = len(self.took) + count
        until(lambda: len(self.took) >= goal or bool(self.failures), f"{count} more answers")

    def __enter__(self) -> Good:
        self._thread.start()
        self.more(3)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        self._thread.join(15)
        if kind is None:
            assert not self.failures and max(self.took) < SLOWEST, (self.failures, max(self.took))


def permissive(listener: dict[str, Any]) -> dict[str, Any]:
    """As Istio's PERMISSIVE: the inspector tells TLS from plaintext."""
    (chain,) = listener["filter_chains"]
    chain["filter_chain_match"] = {"transport_protocol": "tls"}
    plain = {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": chain["filters"]}
    inspector = {"@type": TYPES + "filters.listener.tls_inspector.v3.TlsInspector"}
    return {
        **listener,
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "listener_filters_timeout": f"{LIFE}s",
        "filter_chains": [chain, plain],
    }


@pytest.fixture(scope="module", params=KINDS)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    skip_unless_available(request.param)
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "strict", "permissive")}
    listeners = [mutual(http_listener(name, ports[name], [direct("hello")])) for name in ("strict", "permissive")]
    for one in listeners:
        one["stat_prefix"] = one["name"]
        one["filter_chains"][0]["transport_socket_connect_timeout"] = f"{LIFE}s"
    document = {
        "admin": {"address": address(ports["admin"])},
        "static_resources": {"listeners": [listeners[0], permissive(listeners[1])]},
    }
    running = start(request.param, document, ports, tmp_path_factory.mktemp(request.param))
    yield running
    running.stop()


@contextmanager
def many_files() -> Iterator[None]:
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if highest < COUNT + 200:
        pytest.skip("needs more open files than this system allows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, COUNT + 200), highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, highest))


def counted(proxy: Proxy, listener: str) -> dict[str, int]:
    body = proxy.admin(f"/stats?format=json&filter=^listener.{listener}.")[2]
    found = [one for one in json.loads(body)["stats"] if "value" in one]
    return {one["name"].removeprefix(f"listener.{listener}."): one["value"] for one in found}


ATTACKS = (silent, half_a_hello, a_hello_and_no_more, byte_by_byte)


@pytest.mark.parametrize(
    ("attack", "listener"),
    [
        *((attack, listener) for attack in ATTACKS for listener in ("strict", "permissive")),
        (not_a_handshake, "strict"),  # to the other it is plaintext
    ],
)
def test_they_are_ended_and_others_are_served(
    attack: Callable[[Flood], None], listener: str, proxy: Proxy, tmp_path: Path
) -> None:
    before = counted(proxy, listener)
    with many_files(), Memory(proxy, 64), Good(proxy.ports[listener], tmp_path) as good:
        with Flood(proxy.ports[listener]) as flood:
            attack(flood)
            good.more(3)
            ended = [one for one in flood.sockets if _is_ended(one)]
            assert len(ended) == COUNT, "the proxy ends each one by itself"
        good.more(3)

    def at_rest() -> bool:
        now = counted(proxy, listener)
        return not now["downstream_cx_active"] and not now.get("downstream_pre_cx_active", 0)

    until(at_rest, "nothing is left of them")
    after = counted(proxy, listener)
    names = (
        "downstream_pre_cx_timeout", "downstream_cx_transport_socket_connect_timeout", "ssl.connection_error",
        "downstream_listener_filter_error", "downstream_listener_filter_remote_close",
    )  # fmt: skip
    risen = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    print(proxy.kind, attack.__name__, listener, risen)
    assert sum(risen.values()) >= COUNT, "each is counted"
    assert after["ssl.handshake"] - before["ssl.handshake"] == len(good.took), "of nobody but the good client"


def _is_ended(sock: socket.socket) -> bool:
    """Whether the other side ends it, whatever it says before that."""
    sock.settimeout(5 * LIFE)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
