"""Two control planes on one etcd: either serves any sidecar, and what one does the other knows."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.galley.etcds import Etcd, cluster, needs_etcd
from tests.controlplane.test_whole import NAMESPACE, Named
from tests.controlplane.whole import Whole
from tests.differential.proxies import Proxy, start
from tests.running import free_ports, get, until

pytestmark = needs_etcd


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with cluster() as [running]:
        yield running


@pytest.fixture
def both(etcd: Etcd, tmp_path: Path) -> Iterator[tuple[Whole, Whole]]:
    one = Whole(tmp_path / "one", "--store", etcd.url)
    two = Whole(tmp_path / "two", "--store", etcd.url)
    try:
        yield one, two
    finally:
        one.close()
        two.close()


def entries(mesh: Whole) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mesh.api.request("GET", "/apis/networking.istio.io/v1/workloadentries")["items"]
    return found


def test_a_sidecar_goes_on_with_the_other_when_its_own_is_killed(both: tuple[Whole, Whole], tmp_path: Path) -> None:
    one, two = both
    one.apply(NAMESPACE)
    app = Named("reviews")
    running: Proxy | None = None
    seen: list[int] = []
    stop = threading.Event()
    try:
        port, proxy_port, admin = free_ports(3)
        document = yaml.safe_load(
            one.mizzen(
                "bootstrap", "--namespace", "shop", "--service", "reviews", "--address", "127.0.2.7", "--port", str(port),
                "--app", f"127.0.0.1:{app.server_address[1]}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
            )
        )  # fmt: skip
        (discovery,) = document["static_resources"]["clusters"]
        (endpoints,) = discovery["load_assignment"]["endpoints"]
        second = json.loads(json.dumps(endpoints["lb_endpoints"][0]))
        second["endpoint"]["address"]["socket_address"]["port_value"] = two.xds_port
        endpoints["lb_endpoints"].append(second)
        running = start("sidecar", document, {"admin": admin, "proxy": proxy_port}, tmp_path / "proxy")

        def call() -> int:
            return get(proxy_port, f"http://reviews:{port}/", host=f"reviews:{port}")[0]

        until(lambda: len(one.proxies()) + len(two.proxies()) == 1, "it is connected to either")
        first, other = both if one.proxies() else (two, one)
        until(lambda: len(entries(other)) == 1, "the other knows what registered at the first")
        until(lambda: call() == 200, "the service answers")
        (entry,) = entries(other)
        first_controller = entry["metadata"]["annotations"]["istio.io/workloadController"]

        def ask() -> None:
            while not stop.is_set():
                seen.append(call())

        asking = threading.Thread(target=ask)
        asking.start()
        first.kill()
        until(lambda: len(other.proxies()) == 1, "the sidecar has come to the other", timeout=40)
        until(
            lambda: entries(other)[0]["metadata"]["annotations"]["istio.io/workloadController"] != first_controller,
            "its entry is the other's",
        )
        assert entries(other)[0]["metadata"]["uid"] == entry["metadata"]["uid"]
        delay = {"fixedDelay": "0.001s", "percentage": {"value": 100}}
        abort = {"httpStatus": 418, "percentage": {"value": 100}}
        fault = {"fault": {"delay": delay, "abort": abort}, "route": [{"destination": {"host": "reviews"}}]}
        metadata = {"name": "reviews", "namespace": "shop"}
        spec = {"hosts": ["reviews"], "http": [fault]}
        stop.set()
        asking.join(20)
        assert set(seen) == {200}
        other.apply(
            {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}
        )
        until(lambda: call() == 418, "what the other says reaches the sidecar")
    finally:
        stop.set()
        if running is not None:
            running.stop()
        app.close()


def test_either_has_what_the_other_was_told(both: tuple[Whole, Whole], etcd: Etcd) -> None:
    one, two = both
    one.apply(NAMESPACE)
    metadata = {"name": "a", "namespace": "shop"}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": "1"}}
    one.apply(document)
    assert two.get("ConfigMap", "shop", "a")["data"] == {"x": "1"}
    two.apply({**document, "data": {"x": "2"}})
    there, here = (mesh.get("ConfigMap", "shop", "a") for mesh in both)
    assert there == here and here["data"] == {"x": "2"}
    history = one.api.request("GET", "/mizzen/v1/history?kind=ConfigMap&namespace=shop&name=a")
    assert len(history if isinstance(history, list) else history["items"]) == 2
    etcd.kill()
    with pytest.raises(Exception, match="cannot be reached"):
        two.get("ConfigMap", "shop", "a")
    etcd.start()
    etcd.wait_until_healthy()
    assert two.get("ConfigMap", "shop", "a") == here
    one.apply({**document, "data": {"x": "3"}})
    assert two.get("ConfigMap", "shop", "a")["data"] == {"x": "3"}


def test_what_is_refused_where_nobody_leads_is_in_the_status_until_the_proxy_leaves(
    both: tuple[Whole, Whole], etcd: Etcd, tmp_path: Path
) -> None:
    leader, follower = led(both, etcd)
    follower.apply(NAMESPACE)
    app = Named("reviews")
    port, proxy_port, admin = free_ports(3)
    text = follower.mizzen(
        "bootstrap", "--namespace", "shop", "--service", "reviews", "--address", "127.0.2.8", "--port", str(port),
        "--app", f"127.0.0.1:{app.server_address[1]}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
    )  # fmt: skip
    running = start("sidecar", yaml.safe_load(text), {"admin": admin, "proxy": proxy_port}, tmp_path / "proxy")

    def message() -> str:
        status = leader.get("EnvoyFilter", "shop", "bad").get("status", {})
        return "".join(one["message"] for one in status.get("conditions", ()) if one["type"] == "Reconciled")

    def bad(policy: str) -> dict[str, Any]:
        match = {"context": "SIDECAR_OUTBOUND", "cluster": {"service": "reviews.shop.svc.cluster.local"}}
        patch = {"operation": "MERGE", "value": {"lb_policy": policy}}
        return {
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "bad", "namespace": "shop"},
            "spec": {"configPatches": [{"applyTo": "CLUSTER", "match": match, "patch": patch}]},
        }  # fmt: skip

    try:
        follower.settle(1)
        assert leader.proxies() == []
        leader.apply(bad("CLUSTER_PROVIDED"))
        until(lambda: "refuses outbound|" in message(), "the status says who refuses what", timeout=15)
        leader.apply(bad("RANDOM"))
        until(lambda: message() == "", "the proxy has recovered", timeout=15)
        leader.apply(bad("CLUSTER_PROVIDED"))
        until(lambda: "refuses outbound|" in message(), "it refuses again", timeout=15)
    finally:
        running.stop()
        app.close()
    until(lambda: message() == "", "the proxy has left", timeout=15)


def led(both: tuple[Whole, Whole], etcd: Etcd) -> tuple[Whole, Whole]:
    """Who leads, and who does not."""
    asked = json.dumps({"key": base64.b64encode(b"/mizzen/elections/leader").decode()}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{etcd.port}/v3/kv/range", asked, timeout=10) as answer:
        (pair,) = json.loads(answer.read())["kvs"]
    leader = base64.b64decode(pair["value"]).decode()
    leads = [mesh for mesh in both if mesh.process is not None and f"-{mesh.process.child.pid}-" in leader]
    assert len(leads) == 1
    return leads[0], both[1] if leads == [both[0]] else both[0]


def test_one_writes_statuses_and_another_when_it_is_gone(both: tuple[Whole, Whole], etcd: Etcd) -> None:
    one, two = both
    one.apply(NAMESPACE)

    def lost(name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "shop"}
        spec = {"hosts": [f"{name}.example.com"], "http": [{"route": [{"destination": {"host": "nobody"}}]}]}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}

    def codes(mesh: Whole, name: str) -> list[str]:
        status = mesh.get("VirtualService", "shop", name).get("status", {})
        return [each["type"]["code"] for each in status.get("validationMessages", ())]

    one.apply(lost("first"))
    until(lambda: "IST0101" in codes(two, "first"), "its status says what is missing")

    leader, follower = led(both, etcd)
    leader.kill()
    follower.apply(lost("second"))
    until(lambda: "IST0101" in codes(follower, "second"), "the other writes statuses", timeout=40)
