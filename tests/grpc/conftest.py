"""A grpcio server, and in front of it, in turn, the sidecar and real Envoy on the same bootstrap."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # we fork only to execute something else, beside grpcio's threads

import grpc

from tests.differential.proxies import Proxy
from tests.grpc.bootstraps import AUTHORITY, SERVER, Document, bootstrap, cluster, listener, to
from tests.grpc.client import open_channel
from tests.grpc.echo_upstream import EchoUpstream
from tests.grpc.service import Service
from tests.grpc.subjects import KINDS, proxy_of, skip_unless_available


@dataclass
class Setting:
    """A proxy in front of ``service`` on its listener ``plain``, and of ``secure`` on ``tls``, with TLS on both hops.

    ``/echo`` goes to an HTTP/2 server that sends back what it received, ``/direct`` is answered at once.
    """

    proxy: Proxy
    service: Service
    secure: Service

    @property
    def kind(self) -> str:
        return self.proxy.kind

    def channel(self, name: str = "plain", options: list[tuple[str, Any]] | None = None, **fields: Any) -> grpc.Channel:
        """To a listener, on a connection of its own."""
        authority = AUTHORITY.pem if name == "tls" else None
        return open_channel(self.proxy.ports[name], authority=authority, options=options, **fields)

    def behind(self, name: str) -> Service:
        """The server of a listener."""
        return self.secure if name == "tls" else self.service


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The proxy under test."""
    found: str = request.param
    skip_unless_available(found)
    return found


@pytest.fixture(scope="session")
def services() -> Iterator[tuple[Service, Service, EchoUpstream]]:
    """The upstreams, which both proxies share."""
    made = Service(), Service(tls=(SERVER.key_pem, SERVER.pem)), EchoUpstream()
    yield made
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def setting(
    kind: str, services: tuple[Service, Service, EchoUpstream], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    """The proxy that most tests share."""
    service, secure, echo = services

    def made(ports: Mapping[str, int]) -> Document:
        direct = {
            "match": {"prefix": "/direct"},
            "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
        }
        limits: Document = {"max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}
        small: Document = {"initial_stream_window_size": 256 * 1024, "initial_connection_window_size": 4 << 20}

        def routes(name: str) -> list[Document]:
            return [
                direct,
                to("echo", "/echo", marked="deadline", **limits),
                to("echo", "/echo"),
                to(name, marked="deadline", **limits),
                to(name + "_small_windows", marked="small windows"),
                to(name),
            ]

        return bootstrap(
            [
                listener("plain", ports["plain"], routes("grpc"), max_request_headers_kb=96),
                listener("tls", ports["tls"], routes("grpc_tls"), tls=True, max_request_headers_kb=96),
            ],
            [
                cluster("grpc", service.port),
                cluster("grpc_small_windows", service.port, protocol=small),
                cluster("grpc_tls", secure.port, tls=True),
                cluster("grpc_tls_small_windows", secure.port, tls=True, protocol=small),
                cluster("echo", echo.port),
            ],
            ports["admin"],
        )

    with proxy_of(kind, ("plain", "tls"), made, tmp_path_factory.mktemp(kind)) as proxy:
        yield Setting(proxy, service, secure)


@pytest.fixture(params=["plain", "tls"])
def listener_name(request: pytest.FixtureRequest) -> str:
    """Every case once in plain text and once with TLS on both hops."""
    found: str = request.param
    return found
