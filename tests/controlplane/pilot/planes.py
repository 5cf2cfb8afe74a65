"""Both data planes on a generated configuration: our sidecar and real Envoy, with servers of the test behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controlplane.model.proxy import Proxy
from tests.controlplane.pilot.answering import Answering
from tests.controlplane.pilot.scene import Scene
from tests.controlplane.pilot.static_bootstrap import bootstrap, cluster_names, with_routes
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import FreePorts, start

PLANES = ("sidecar", "envoy")


class Plane(NamedTuple):
    """A running proxy: the ports of its listeners by name, and the servers behind its clusters."""

    ports: Mapping[str, int]
    servers: Answering


@contextlib.contextmanager
def running(
    kind: str,
    scene: Scene,
    node: Proxy,
    directory: Path,
    *,
    silent: str = "",
    secrets: list[dict[str, Any]] | None = None,
) -> Iterator[Plane]:
    """A proxy that runs what ``node`` gets in a scene. Behind the cluster ``silent`` nobody answers."""
    routes = scene.routes(node)
    listeners = {name: with_routes(listener, routes) for name, listener in scene.listeners(node).items()}
    with Answering(cluster_names(listeners) - {silent}) as servers, _unanswering() as deaf:
        behind = {**servers.ports, **({silent: deaf} if silent else {})}
        described, ports = bootstrap(listeners, behind, FreePorts().take, secrets)
        try:
            proxy = start(kind, described, ports, directory)
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        try:
            yield Plane(ports, servers)
        finally:
            proxy.stop()


@contextlib.contextmanager
def _unanswering() -> Iterator[int]:
    """The port of a server that takes requests and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]
