"""Virtual services behave in our sidecar and in real Envoy as Istio's reference says: one table for both."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.controlplane.pilot.answering import Answering
from tests.controlplane.pilot.behaviour import cases, check, services
from tests.controlplane.pilot.scene import Scene, sidecar
from tests.controlplane.pilot.static_bootstrap import bootstrap, cluster_names, with_routes
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import FreePorts, start

ALL = [case for topic in ("matching", "destinations", "changes", "policies") for case in cases(topic)]
SILENT = "outbound|80||silent.shop.svc.cluster.local"


@contextlib.contextmanager
def _unanswering() -> Iterator[int]:
    """The port of a server that takes requests and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module", params=["sidecar", "envoy"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Answering]]:
    """The forward-proxy port of a proxy that runs what is generated from all cases, and the servers behind it."""
    scene = Scene(services(), *(case.resources for case in ALL))
    client = sidecar(LABELS={"app": "client"})
    routes = scene.routes(client)
    listeners = {name: with_routes(listener, routes) for name, listener in scene.listeners(client).items()}
    free = FreePorts()
    with Answering(cluster_names(listeners) - {SILENT}) as servers, _unanswering() as silent:
        described, ports = bootstrap(listeners, {**servers.ports, SILENT: silent}, free.take)
        try:
            proxy = start(request.param, described, ports, tmp_path_factory.mktemp(request.param))
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        try:
            yield ports["127.0.0.1_15002"], servers
        finally:
            proxy.stop()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_requests_are_answered_as_the_table_says(case, plane):  # type: ignore[no-untyped-def]
    port, servers = plane
    for request in case.requests:
        check(port, f"{case.name}.test", request, servers)
