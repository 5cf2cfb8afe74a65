"""Real Envoy and our sidecar are told the same: what they accept, count and show afterwards is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR
from tests.running import get, until
from tests.sidecar.transport.serving import CLIENT, SERVER
from tests.sidecar.transport.serving import inline as pem
from tests.sidecar.xds.beside import ADS, Managed, free_port, managed
from tests.sidecar.xds.driving import assignment
from tests.sidecar.xds.test_listeners import ROUTER, chain, inline, listener, routes

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
OPEN = free_port()

Scenario = Callable[[Managed, int, int], Any]


def eds(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS}, "connect_timeout": "1s", **more}


def by_rds(name: str) -> dict[str, Any]:
    return {"rds": {"route_config_name": name, "config_source": ADS}}


def refused(answers: dict[str, str]) -> bool:
    """Whether a change was not accepted."""
    return bool(answers)


def body(port: int) -> tuple[int, str]:
    status, _, text = get(port)
    return status, text


def shown(managed: Managed, part: str, *fields: str) -> Any:
    """Some fields of a part of /config_dump, without what differs from run to run."""
    dump = managed.dump("?include_eds").get(part, {})
    text = json.dumps({field: dump.get(field) for field in fields})
    text = re.sub(r'"(last_updated|last_update_attempt|details)": "[^"]*"', r'"\1": ""', text)
    return json.loads(re.sub(r'"port_value": \d+', '"port_value": 0', text))


def clusters_change(managed: Managed, port: int, other: int) -> Any:
    seen = [refused(managed.set("cluster", {"b": eds("b")}))]
    managed.set("endpoints", {"b": assignment("b", OPEN)})
    until(lambda: managed.stats("cluster_manager.")["cluster_manager.warming_clusters"] == 0, "no cluster to warm")
    seen.append(refused(managed.set("cluster", {"b": eds("b")})))
    seen.append(refused(managed.set("cluster", {"xds": eds("xds")})))
    seen.append(refused(managed.set("cluster", {}, ["xds"])))
    seen.append(refused(managed.set("endpoints", {"b": {"cluster_name": "b"}})))
    names = ("membership_total", "membership_change", "update_success", "update_rejected", "warming_state")
    counted = managed.stats("cluster.b.")
    seen.append({name: counted[f"cluster.b.{name}"] for name in names})
    seen.append(shown(managed, "ClustersConfigDump", "dynamic_active_clusters", "dynamic_warming_clusters"))
    seen.append(refused(managed.set("cluster", {}, ["b"])))
    until(lambda: not managed.stats("cluster.b."), "no statistics of a cluster that is gone")
    names = ("active_clusters", "warming_clusters", "cluster_modified", "cluster_removed", "cds.config_reload",
             "cds.update_rejected", "cds.update_success")  # fmt: skip
    counted = managed.stats("cluster_manager.")
    seen.append({name: counted[f"cluster_manager.{name}"] for name in names})
    seen.append(shown(managed, "EndpointsConfigDump", "dynamic_endpoint_configs"))
    return seen


def listeners_change(managed: Managed, port: int, other: int) -> Any:
    seen: list[Any] = [body(port)]
    seen.append(refused(managed.set("listener", {"m": listener("m", other, chain(by_rds("r")))})))
    seen.append(body(other))
    managed.set("routes", {"r": routes("r", "two")})
    seen.append(body(port))
    seen.append(refused(managed.set("listener", {"l": listener("l", port, chain(inline("in place")))})))
    seen.append(body(port))
    moved = listener("l", port, chain(inline("replaced")), per_connection_buffer_limit_bytes=4096)
    seen.append(refused(managed.set("listener", {"l": moved})))
    seen.append(body(port))
    seen.append(refused(managed.set("listener", {"same": listener("same", port, chain(inline("x")))})))
    seen.append(refused(managed.set("listener", {}, ["same"])))
    unknown = {"match": {"prefix": "/"}, "route": {"cluster": "nobody"}}
    dangling = {"name": "z", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [unknown]}]}
    seen.append(refused(managed.set("listener", {"n": listener("n", free_port(), chain({"route_config": dangling}))})))
    seen.append(refused(managed.set("listener", {}, ["n"])))
    seen.append(refused(managed.set("routes", {"r": dangling | {"name": "r"}})))  # by RDS clusters may come later
    seen.append(body(other)[0])
    seen.append(refused(managed.set("listener", {"m": listener("m", other)})))
    seen.append(body(other)[0])
    until(lambda: managed.stats("listener_manager.")["listener_manager.total_listeners_draining"] == 0, "the drain", 30)
    until(lambda: not managed.stats("listener_manager.")["listener_manager.total_filter_chains_draining"], "it all", 30)
    names = ("listener_added", "listener_modified", "listener_removed", "listener_in_place_updated",
             "listener_create_success", "total_listeners_active", "total_listeners_warming", "lds.update_rejected",
             "lds.update_success")  # fmt: skip
    counted = managed.stats("listener_manager.")
    seen.append({name: counted[f"listener_manager.{name}"] for name in names})
    counted = managed.stats("http.test.rds.r.")
    names = ("config_reload", "update_success", "update_rejected", "update_empty")
    seen.append({name: counted[f"http.test.rds.r.{name}"] for name in names})
    seen.append(shown(managed, "RoutesConfigDump", "dynamic_route_configs"))
    states = shown(managed, "ListenersConfigDump", "dynamic_listeners")["dynamic_listeners"]
    seen.append([(one["name"], sorted(one)) for one in states if "name" in one])
    return seen


def filters_change(managed: Managed, port: int, other: int) -> Any:
    def fault(status: int) -> dict[str, Any]:
        return {"name": "f", "typed_config": {"@type": FAULT, "abort": abort(status)}}

    def abort(status: int) -> dict[str, Any]:
        return {"http_status": status, "percentage": {"numerator": 100}}

    discovered = {"name": "f", "config_discovery": {"config_source": ADS, "type_urls": [FAULT]}}
    with_filter = chain({**inline("x"), "http_filters": [discovered, ROUTER]})
    managed.set("extension", {"f": fault(410)})
    seen: list[Any] = [refused(managed.set("listener", {"m": listener("m", other, with_filter)}))]
    until(lambda: managed.stats("listener_manager.")["listener_manager.total_listeners_warming"] == 0, "the listener")
    seen.append(body(other)[0])
    seen.append(refused(managed.set("extension", {"f": fault(411)})))
    seen.append(body(other)[0])
    wrong = {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 1}
    seen.append(refused(managed.set("extension", {"f": {"name": "f", "typed_config": wrong}})))
    seen.append(body(other)[0])
    counted = managed.stats("extension_config_discovery.http_filter.f.")
    names = ("config_reload", "config_conflict", "update_success", "update_rejected")
    seen.append({name: counted[f"extension_config_discovery.http_filter.f.{name}"] for name in names})
    seen.append(shown(managed, "EcdsConfigDump", "ecds_filters"))
    return seen


def secrets_change(managed: Managed, port: int, other: int) -> Any:
    tls = {"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": ADS}]}}
    socket = {"name": "tls", "typed_config": {"@type": TLS + "DownstreamTlsContext", **tls}}
    good, bad = pem(SERVER), pem(SERVER) | {"private_key": pem(CLIENT)["private_key"]}
    seen: list[Any] = [
        refused(managed.set("listener", {"m": listener("m", other, chain(inline("x"), transport_socket=socket))}))
    ]
    until(lambda: "sds.s.update_attempt" in managed.stats("sds."), "the secret to be asked for")
    seen.append(shown(managed, "SecretsConfigDump", "dynamic_active_secrets", "dynamic_warming_secrets"))
    seen.append(managed.stats("listener_manager.")["listener_manager.total_listeners_warming"])
    seen.append(refused(managed.set("secret", {"s": {"name": "s", "tls_certificate": good}})))
    until(lambda: managed.stats("listener_manager.")["listener_manager.total_listeners_warming"] == 0, "the listener")
    seen.append(shown(managed, "SecretsConfigDump", "dynamic_active_secrets", "dynamic_warming_secrets"))
    seen.append(refused(managed.set("secret", {"s": {"name": "s", "tls_certificate": bad}})))
    counted = managed.stats("sds.s.")
    seen.append({name: counted[f"sds.s.{name}"] for name in ("update_success", "update_rejected")})
    return seen


def listeners_wait(managed: Managed, port: int, other: int) -> Any:
    tls = {"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": ADS}]}}
    socket = {"name": "tls", "typed_config": {"@type": TLS + "DownstreamTlsContext", **tls}}
    managed.set("listener", {"m": listener("m", other, chain(by_rds("later"), transport_socket=socket))})
    waiting = json.loads(managed.proxy.admin("/init_dump")[2])
    until(lambda: managed.stats("listener_manager.")["listener_manager.total_listeners_warming"] == 0, "the listener")
    text = re.sub(r" m \d+", " m", json.dumps(waiting))
    dump = json.loads(text)
    for one in dump["unready_targets_dumps"]:
        one["target_names"].sort()  # Envoy has them in any order
    return dump, json.loads(managed.proxy.admin("/init_dump")[2])


SCENARIOS = (clusters_change, listeners_change, filters_change, secrets_change)


@pytest.mark.parametrize(
    ("scenario", "delta"),
    [
        *((scenario, False) for scenario in SCENARIOS),
        *((scenario, True) for scenario in SCENARIOS),
        (listeners_wait, False),  # with deltas Envoy waits for ever for routes that the server says are not there
    ],
)
def test_the_same_happens(scenario: Scenario, delta: bool, tmp_path: Path) -> None:
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    found: dict[str, Any] = {}
    for kind in (ENVOY, SIDECAR):
        port, other = free_port(), free_port()
        resources = {
            "cluster": {"a": eds("a")},
            "endpoints": {"a": assignment("a", OPEN)},
            "listener": {"l": listener("l", port, chain(by_rds("r")))},
            "routes": {"r": routes("r", "one")},
        }
        with managed(kind, tmp_path / kind, resources, {"l": port}, delta) as running:
            found[kind] = scenario(running, port, other)
    assert found[SIDECAR] == found[ENVOY]
