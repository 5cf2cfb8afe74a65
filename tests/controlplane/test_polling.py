"""Proxies that poll over REST, and tools that ask by CSDS what proxies have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.status.v3.csds_pb2 import ClientStatusRequest, ClientStatusResponse

from controlplane.cli.identity import join
from controlplane.cli.workload import Discovery, Workload, bootstrap_document
from tests.controlplane.test_whole import NAMESPACE, Named
from tests.controlplane.whole import Whole, whole
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import start
from tests.running import free_ports, get, until


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("mesh")) as running:
        running.apply(NAMESPACE)
        yield running


def service(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "hosts": [f"{name}.example"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "location": "MESH_INTERNAL",
            "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
        },
    }


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_a_proxy_that_polls(kind: str, mesh: Whole, tmp_path: Path) -> None:
    """It authenticates by its certificate, gets clusters and listeners whole, and follows changes."""
    if kind == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with ExitStack() as stack:
        one, two = Named("one"), Named("two")
        stack.callback(one.close)
        stack.callback(two.close)
        name = f"books-{kind}"
        mesh.apply(service(name, one.server_address[1]))
        token = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "page"})["token"]
        chain, key = join(mesh.api, token, tmp_path)
        port, app, proxy_port, admin = free_ports(4)
        workload = Workload(
            "page",
            "shop",
            "127.0.0.1",
            port,
            f"127.0.0.1:{app}",
            service_account="page",
            proxy_port=proxy_port,
            admin_port=admin,
        )
        discovery = Discovery(f"127.0.0.1:{mesh.api_port}", mesh.api.access.authority, str(chain), str(key))
        bootstrap = bootstrap_document(workload, discovery)
        del bootstrap["node"]["metadata"]["AUTO_REGISTER_GROUP"]
        (cluster,) = bootstrap["static_resources"]["clusters"]
        del cluster["typed_extension_protocol_options"]
        cluster["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] = ["http/1.1"]
        source = {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "REST",
                "transport_api_version": "V3",
                "cluster_names": ["xds-grpc"],
                "refresh_delay": "0.2s",
            },
        }
        bootstrap["dynamic_resources"] = {"cds_config": source, "lds_config": source}
        running = start(kind, bootstrap, {"admin": admin, "proxy": proxy_port}, tmp_path / "proxy")
        stack.callback(running.stop)

        def call() -> str:
            try:
                status, _, body = get(proxy_port, f"http://{name}.example/", host=f"{name}.example")
            except OSError:
                return ""
            return body if status == 200 else str(status)

        until(lambda: call() == "one", f"it has its configuration: {running.log()}", timeout=30)
        mesh.apply(service(name, two.server_address[1]))
        until(lambda: call() == "two", "it follows")


def test_who_may_poll(mesh: Whole) -> None:
    node = {"id": "sidecar~127.0.0.1~x.shop~shop.svc.cluster.local", "metadata": {"NAMESPACE": "shop"}}
    answer = mesh.api.request("POST", "/v3/discovery:clusters", {"node": node})
    assert {one["name"] for one in answer["resources"]} >= {"BlackHoleCluster"}
    for path, body, words in (
        ("/v3/discovery:clusters", {"node": {"id": "x"}}, "node id"),
        ("/v3/discovery:secrets", {"node": node}, "there is no"),
        ("/v3/discovery:clusters", [], "."),
    ):
        with pytest.raises(Exception, match=words):
            mesh.api.request("POST", path, body)


def test_csds(mesh: Whole, tmp_path: Path) -> None:
    """What a proxy has, as tools for Envoy's client status discovery see it."""
    port, app, proxy_port, admin = free_ports(4)
    workload = Workload("page", "shop", "127.0.0.1", port, f"127.0.0.1:{app}", proxy_port=proxy_port, admin_port=admin)
    bootstrap = bootstrap_document(workload, Discovery(f"127.0.0.1:{mesh.xds_port}"))
    del bootstrap["node"]["metadata"]["AUTO_REGISTER_GROUP"]
    running = start("sidecar", bootstrap, {"admin": admin}, tmp_path)
    try:
        mesh.settle(1)
        with grpc.insecure_channel(f"127.0.0.1:{mesh.xds_port}") as channel:
            fetch = channel.unary_unary(
                "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus",
                request_serializer=ClientStatusRequest.SerializeToString,
                response_deserializer=ClientStatusResponse.FromString,
            )
            found = fetch(ClientStatusRequest(), timeout=10)
            assert [one.node.id for one in found.config] == [workload.node_id]
            by_name = {one.name: one for one in found.config[0].generic_xds_configs}
            assert by_name["BlackHoleCluster"].type_url.endswith("v3.Cluster")
            assert {one.config_status for one in by_name.values()} == {1}, json.dumps(mesh.proxies())
            assert by_name["BlackHoleCluster"].xds_config.value
            without = fetch(ClientStatusRequest(exclude_resource_contents=True), timeout=10)
            assert not any(one.xds_config.value for one in without.config[0].generic_xds_configs)
            request = ClientStatusRequest()
            request.node_matchers.add().node_id.prefix = "router~"
            assert not fetch(request, timeout=10).config
            request.node_matchers[0].node_id.safe_regex.regex = ".*"
            with pytest.raises(grpc.RpcError, match="use exact, prefix, suffix or contains"):
                fetch(request, timeout=10)
    finally:
        running.stop()
