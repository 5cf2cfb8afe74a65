"""The same key picks the same host as behind real Envoy: rings, tables, weights, hash keys, localities, priorities."""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh64_intdigest

from sidecar.cluster.endpoints import static_host_sets
from sidecar.cluster.load_balancers.configured import balancer_of
from sidecar.config.address import SocketAddress
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.common_lb import CommonLbConfig
from sidecar.config.core_types import Locality
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.config.lb_policies import LbConfig, MaglevLbConfig, RingHashLbConfig
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.cluster.surroundings import Context, cluster_stats, finish, seeded

HOSTS = 9
KEYS = 200


class Upstreams:
    """One socket for each host, on addresses that are not in order; each answers with its own."""

    def __init__(self) -> None:
        self.sockets = []
        for last in random.Random(7).sample(range(2, 250), HOSTS):
            listener = socket.create_server((f"127.0.0.{last}", 0))
            self.sockets.append(listener)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self.addresses: list[tuple[str, int]] = [listener.getsockname() for listener in self.sockets]

    def _accept(self, listener: socket.socket) -> None:
        own = "{}:{}".format(*listener.getsockname()).encode()
        reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(own), own)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, reply), daemon=True).start()

    def _serve(self, connection: socket.socket, reply: bytes) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(reply * data.count(b"\r\n\r\n"))

    def close(self) -> None:
        for listener in self.sockets:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def locality(group: int) -> Locality:
    return Locality("r", "zyx"[group], "")


def configurations(addresses: list[tuple[str, int]]) -> list[ClusterConfig]:
    """One cluster for each thing that the tables depend on."""

    def cluster(
        name: str,
        own: LbConfig,
        common: CommonLbConfig,
        groups: list[LocalityLbEndpoints],
    ) -> ClusterConfig:
        policy = "MAGLEV" if isinstance(own, MaglevLbConfig) else "RING_HASH"
        assignment = ClusterLoadAssignment(name, tuple(groups))
        return ClusterConfig(name, name, "STATIC", assignment, lb_policy=policy, lb_config=own, common_lb_config=common)

    def endpoints(numbers: range, **more: Any) -> tuple[LbEndpoint, ...]:
        return tuple(
            LbEndpoint(
                SocketAddress(*addresses[number]),
                **{name: value(number) for name, value in more.items()},
            )
            for number in numbers
        )

    everyone = range(HOSTS)
    plain = [LocalityLbEndpoints(endpoints(everyone))]
    weighted = [LocalityLbEndpoints(endpoints(everyone, load_balancing_weight=lambda number: 1 + number * 3 % 7))]
    named = [
        LocalityLbEndpoints(
            endpoints(everyone, metadata=lambda number: {"envoy.lb": {"hash_key": f"key {number * 5 % 9}"}})
        )
    ]
    hostnames = [LocalityLbEndpoints(endpoints(everyone, hostname=lambda number: f"{number * 7 % 9}.test"))]
    localities = [
        LocalityLbEndpoints(
            endpoints(range(at * 3, at * 3 + 3), load_balancing_weight=lambda number: 1 + number % 2),
            locality(at),
            load_balancing_weight=at + 1,
        )
        for at in range(3)
    ]
    sick = [
        LocalityLbEndpoints(
            endpoints(
                range(at * 3, at * 3 + 3),
                health_status=lambda number: "UNHEALTHY" if number % 3 else "HEALTHY",
            ),
            priority=at,
        )
        for at in range(3)
    ]
    overwhelmed = [  # 28 % and 35 %: the share that is lost by rounding goes to the first priority
        LocalityLbEndpoints(
            endpoints(numbers, health_status=lambda number: "HEALTHY" if number in (0, 5) else "UNHEALTHY"),
            priority=at,
        )
        for at, numbers in enumerate((range(5), range(5, 9)))
    ]
    common, no_panic = CommonLbConfig(), CommonLbConfig(healthy_panic_threshold=0.0)
    by_locality = CommonLbConfig(locality_weighted_lb_config=True)
    by_hostname = CommonLbConfig(use_hostname_for_hashing=True)
    configs = []
    for name, own in (
        ("ring", RingHashLbConfig()),
        ("murmur", RingHashLbConfig(hash_function="MURMUR_HASH_2")),
        ("small_ring", RingHashLbConfig(minimum_ring_size=10, maximum_ring_size=23)),
        ("maglev", MaglevLbConfig()),
        ("small_maglev", MaglevLbConfig(table_size=23)),
    ):
        configs += [
            cluster(f"{name}_plain", own, common, plain),
            cluster(f"{name}_weighted", own, common, weighted),
            cluster(f"{name}_named", own, common, named),
            cluster(f"{name}_hostnames", own, by_hostname, hostnames),
            cluster(f"{name}_localities", own, by_locality, localities),
            cluster(f"{name}_priorities", own, no_panic, sick),
            cluster(f"{name}_overwhelmed", own, no_panic, overwhelmed),
        ]
    return configs


def as_envoy(config: ClusterConfig) -> dict[str, Any]:
    """The same cluster for Envoy."""
    groups = []
    for group in config.load_assignment.endpoints:
        listed = []
        for endpoint in group.lb_endpoints:
            assert isinstance(endpoint.address, SocketAddress)
            address = {"address": endpoint.address.address, "port_value": endpoint.address.port_value}
            listed.append(
                {
                    "endpoint": {"address": {"socket_address": address}, "hostname": endpoint.hostname},
                    "load_balancing_weight": endpoint.load_balancing_weight,
                    "health_status": endpoint.health_status,
                    "metadata": {"filter_metadata": endpoint.metadata},
                }
            )
        made: dict[str, Any] = {"lb_endpoints": listed, "priority": group.priority}
        made["locality"] = {"region": group.locality.region, "zone": group.locality.zone}
        if group.load_balancing_weight:
            made["load_balancing_weight"] = group.load_balancing_weight
        groups.append(made)
    common: dict[str, Any] = {"healthy_panic_threshold": {"value": config.common_lb_config.healthy_panic_threshold}}
    if config.common_lb_config.locality_weighted_lb_config:
        common["locality_weighted_lb_config"] = {}
    if config.common_lb_config.use_hostname_for_hashing:
        common["consistent_hashing_lb_config"] = {"use_hostname_for_hashing": True}
    cluster: dict[str, Any] = {
        "name": config.name,
        "type": "STRICT_DNS" if config.common_lb_config.use_hostname_for_hashing else "STATIC",  # or Envoy refuses
        "connect_timeout": "5s",
        "lb_policy": config.lb_policy,
        "common_lb_config": common,
        "load_assignment": {"cluster_name": config.name, "endpoints": groups},
    }
    own = config.lb_config
    if isinstance(own, MaglevLbConfig):
        cluster["maglev_lb_config"] = {"table_size": own.table_size}
    elif isinstance(own, RingHashLbConfig):
        cluster["ring_hash_lb_config"] = {
            "minimum_ring_size": own.minimum_ring_size,
            "maximum_ring_size": own.maximum_ring_size,
            "hash_function": own.hash_function,
        }
    return cluster


def bootstrap(configs: list[ClusterConfig], port: int) -> dict[str, Any]:
    routes = [
        {
            "match": {"path": f"/{config.name}"},
            "route": {"cluster": config.name, "hash_policy": [{"header": {"header_name": "x-key"}}]},
        }
        for config in configs
    ]
    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hashes",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}}],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [as_envoy(config) for config in configs]}}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    running = Upstreams()
    yield running
    running.close()


@pytest.fixture(scope="module")
def envoy(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    """A connection to real Envoy, in front of the upstreams."""
    try:
        binary = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    directory: Path = tmp_path_factory.mktemp("envoy")
    file = directory / "envoy.json"
    file.write_text(json.dumps(bootstrap(configurations(upstreams.addresses), port)))
    arguments = ["--config-path", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                connection.connect()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
        yield connection
    finally:
        connection.close()
        process.terminate()
        process.wait(10)


NAMES = [config.name for config in configurations([("127.0.0.1", 1)] * HOSTS)]


@pytest.mark.parametrize("name", NAMES)
def test_same_key_same_host(name: str, envoy: http.client.HTTPConnection, upstreams: Upstreams) -> None:
    config = next(config for config in configurations(upstreams.addresses) if config.name == name)
    weighted = config.common_lb_config.locality_weighted_lb_config
    host_sets = static_host_sets(config.load_assignment, weighted)
    pick = finish(balancer_of(config, cluster_stats(), seeded(), lambda: 0.0).build(host_sets))
    theirs, ours = [], []
    for key in (f"session-{number}".encode() for number in range(KEYS)):
        envoy.request("GET", f"/{name}", headers={"x-key": key.decode()})
        theirs.append(envoy.getresponse().read().decode())
        host = pick(Context(hash_key=xxh64_intdigest(key)))
        assert host is not None
        ours.append(host.address.text)
    assert ours == theirs
    assert len(set(ours)) > 1
