"""The control plane as a whole: resources in by REST, files and kubectl; real Envoy and our sidecar by what comes out."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.api import ApiError
from tests.controlplane.whole import Whole, whole
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import Proxy, start
from tests.running import Process, free_ports, get, until

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""


def routes(v1: int) -> dict[str, Any]:
    """A VirtualService that gives version 1 a share, and version 2 the rest."""
    route = [
        {"destination": {"host": "reviews", "subset": f"v{number}"}, "weight": weight}
        for number, weight in ((1, v1), (2, 100 - v1))
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"route": route}]},
    }


class Named(http.server.ThreadingHTTPServer):
    """An application that answers with its name, and its probe with ``status``."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.status = 200
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(server.status if self.path == "/ready" else 200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join(5)


class Shop:
    """Two versions of reviews behind sidecars, and a page beside a sidecar that calls them."""

    def __init__(self, mesh: Whole, kind: str, directory: Path, stack: ExitStack) -> None:
        self.mesh = mesh
        self.kind = kind
        self.directory = directory
        self.stack = stack
        self.proxies: dict[str, Proxy] = {}
        mesh.apply(NAMESPACE)
        port = free_ports(1)[0]
        self.port = port
        for number in (1, 2):
            app = Named(f"reviews v{number}")
            stack.callback(app.close)
            self.add("reviews", f"v{number}", f"127.0.2.{number}", port, app.server_address[1])
        page = Named("page")
        stack.callback(page.close)
        self.add("page", "v1", "127.0.2.9", free_ports(1)[0], page.server_address[1])

    def add(self, service: str, version: str, address: str, port: int, app: int) -> None:
        proxy_port, admin = free_ports(2)
        text = self.mesh.mizzen(
            "bootstrap", "--namespace", "shop", "--service", service, "--version", version, "--address", address,
            "--port", str(port), "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
        )  # fmt: skip
        name = f"{service}-{version}"
        running = start(
            self.kind,
            yaml.safe_load(text),
            {"admin": admin, "proxy": proxy_port, "inbound": port},
            self.directory / name,
        )
        self.stack.callback(running.stop)
        self.proxies[name] = running

    def call(self, path: str = "/", host: str | None = None) -> tuple[int, str]:
        """The page calls reviews, through the forward proxy beside it."""
        url = f"http://{host or 'reviews'}:{self.port}{path}"
        status, _, body = get(self.proxies["page-v1"].ports["proxy"], url, host=f"{host or 'reviews'}:{self.port}")
        return status, body


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("mesh")) as running:
        yield running


@pytest.fixture(scope="module", params=["envoy", "sidecar"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if request.param == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with whole(tmp_path_factory.mktemp("shop-mesh")) as running, ExitStack() as stack:
        made = Shop(running, request.param, tmp_path_factory.mktemp("shop"), stack)
        running.settle(3)
        yield made


def answers(shop: Shop, count: int = 40) -> set[tuple[int, str]]:
    return {shop.call() for _ in range(count)}


def test_workloads_register_themselves_and_are_found_by_name(shop: Shop) -> None:
    both = {(200, "reviews v1"), (200, "reviews v2")}
    until(lambda: answers(shop) == both, "both versions answer")
    for host in ("reviews.shop", "reviews.shop.svc", "reviews.shop.svc.cluster.local"):
        assert shop.call(host=host)[0] == 200


def test_a_route_moves_traffic_within_a_second(shop: Shop) -> None:
    shop.mesh.apply(SUBSETS, routes(100))
    until(lambda: answers(shop) == {(200, "reviews v1")}, "everything goes to version 1", timeout=5)
    shop.mesh.apply(routes(0))
    until(lambda: shop.call() == (200, "reviews v2"), "version 2 answers", timeout=1)
    assert answers(shop) == {(200, "reviews v2")}


def test_what_a_proxy_refuses_is_in_the_status_of_what_caused_it(shop: Shop) -> None:
    """A retry host predicate that is no extension: right for us, refused by whoever has to use it."""
    shop.mesh.settle(3)
    document = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "bad", "namespace": "shop"},
        "spec": {
            "configPatches": [
                {
                    "applyTo": "CLUSTER",
                    "match": {"context": "SIDECAR_OUTBOUND", "cluster": {"service": "reviews.shop.svc.cluster.local"}},
                    "patch": {"operation": "MERGE", "value": {"lb_policy": "CLUSTER_PROVIDED"}},
                }
            ]
        },
    }
    shop.mesh.apply(document)

    def told() -> bool:
        found = shop.mesh.get("EnvoyFilter", "shop", "bad")
        return any(
            one["type"] == "Reconciled" and one["status"] == "False"
            for one in found.get("status", {}).get("conditions", ())
        )

    until(told, "the status says that it is refused")
    assert any(state["status"] == "NACKED" for one in shop.mesh.proxies() for state in one["types"].values())
    assert "refuses CDS" in shop.mesh.mizzen("proxy-status", status=1)
    assert shop.call()[0] == 200
    shop.mesh.mizzen("delete", "-f", str(_written(shop.directory, document)))
    shop.mesh.settle(3)


def test_what_does_not_fit_together_is_in_the_status_and_leaves_it_when_it_does(shop: Shop) -> None:
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "misspelt", "namespace": "shop"},
        "spec": {"host": "rewievs"},
    }
    shop.mesh.apply(rule)

    def codes() -> list[str]:
        status = shop.mesh.get("DestinationRule", "shop", "misspelt").get("status", {})
        return [one["type"]["code"] for one in status.get("validationMessages", ())]

    until(lambda: codes() == ["IST0174"], "the status says that there is no such service")
    assert "[IST0174] (DestinationRule shop/misspelt)" in shop.mesh.mizzen("analyze")
    shop.mesh.apply({**rule, "spec": {"host": "ratings.shop.example.com"}})
    shop.mesh.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "far", "namespace": "shop"},
            "spec": {
                "hosts": ["ratings.shop.example.com"],
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            },
        }
    )
    until(lambda: codes() == [], "the status says nothing any more")
    shop.mesh.mizzen("delete", "-f", str(_written(shop.directory, rule)))
    far = {**rule, "kind": "ServiceEntry", "metadata": {"name": "far", "namespace": "shop"}}
    shop.mesh.mizzen("delete", "-f", str(_written(shop.directory, far)))
    shop.mesh.settle(3)


def test_two_listeners_of_one_address_are_an_error_that_names_both(shop: Shop) -> None:
    page = shop.proxies["page-v1"].ports
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "page", "namespace": "shop"},
        "spec": {
            "workloadSelector": {"labels": {"app": "page"}},
            "egress": [
                {
                    "port": {"number": page["inbound"], "name": "http", "protocol": "HTTP"},
                    "bind": "127.0.2.9",
                    "hosts": ["*/*"],
                },
                {"hosts": ["*/*"]},
            ],
        },
    }
    shop.mesh.apply(document)

    def told() -> str:
        found = [shop.mesh.get("Sidecar", "shop", "page"), shop.mesh.get("Service", "shop", "page")]
        conditions = [one for each in found if each for one in each.get("status", {}).get("conditions", ())]
        return next((one["message"] for one in conditions if one["type"] == "Reconciled"), "")

    until(lambda: f"wants 127.0.2.9:{page['inbound']}, which egress listener" in told(), f"it is told: {told()}")
    shop.mesh.mizzen("delete", "-f", str(_written(shop.directory, document)))
    until(lambda: told() == "", "it is mended")


def _written(directory: Path, document: Any) -> Path:
    path = directory / "document.json"
    path.write_text(json.dumps(document))
    return path


def test_the_control_plane_is_killed_and_comes_back(shop: Shop) -> None:
    """No request fails meanwhile, and changes flow again without anyone restarting."""
    shop.mesh.apply(SUBSETS, routes(100))
    until(lambda: shop.call() == (200, "reviews v1"), "version 1 answers")
    stop = threading.Event()
    seen: list[tuple[int, str]] = []

    def ask() -> None:
        while not stop.is_set():
            seen.append(shop.call())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        shop.mesh.kill()
        count = len(seen)
        until(lambda: len(seen) > count + 50, "requests are answered without it")
        shop.mesh.start()
        until(lambda: len(shop.mesh.proxies()) == 3, "all proxies are back", timeout=60)
        shop.mesh.apply(routes(0))
        until(lambda: seen[-1] == (200, "reviews v2"), "changes flow again")
    finally:
        stop.set()
        asking.join(20)
    assert {status for status, _ in seen} == {200}
    assert {body for _, body in seen} == {"reviews v1", "reviews v2"}


def test_a_workload_that_ends_is_taken_out(shop: Shop) -> None:
    shop.mesh.apply(SUBSETS, routes(50))
    until(lambda: len(answers(shop)) == 2, "both versions answer")
    shop.proxies["reviews-v2"].stop()
    until(lambda: len(shop.mesh.proxies()) == 2, "its stream has ended")
    entries = shop.mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")
    until(
        lambda: (
            "v2"
            not in json.dumps(
                shop.mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")["items"]
            )
        ),
        f"its WorkloadEntry goes after the grace period: {entries}",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told_to(number: signal.Signals, shop: Shop, tmp_path: Path) -> None:
    """At once, with status 0, also while proxies and clients are connected."""
    with whole(tmp_path) as running:
        proxy_port, admin = free_ports(2)
        text = running.mizzen(
            "bootstrap", "--service", "page", "--address", "127.0.2.9", "--port", "9080", "--app", "127.0.0.1:1",
            "--proxy-port", str(proxy_port), "--admin-port", str(admin),
        )  # fmt: skip
        proxy = start(shop.kind, yaml.safe_load(text), {"admin": admin}, tmp_path / "proxy")
        try:
            running.settle(1)
            assert running.process is not None
            running.process.send(number)
            began = time.monotonic()
            assert running.process.end(20) == 0, running.process.output
            assert time.monotonic() - began < 5
            assert "Traceback" not in running.process.output
        finally:
            proxy.stop()


def test_plaintext_stays_on_this_machine(tmp_path: Path) -> None:
    with Process("controlplane", "--data-dir", str(tmp_path), "--xds-address", "0.0.0.0:15010") as refused:
        assert refused.end() == 1
    assert "--secure-xds-address" in refused.output


def test_a_second_control_plane_on_the_same_directory_is_refused(mesh: Whole) -> None:
    with Process("controlplane", "--data-dir", str(mesh.directory), "--api-address", "127.0.0.1:0") as second:
        assert second.end() == 1
    assert str(mesh.directory) in second.output


def test_the_configuration_of_the_mesh_is_in_a_file_and_a_wrong_one_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(
        "extensionProviders:\n- name: opa\n  envoyExtAuthzGrpc: {service: opa.shop.svc.cluster.local, port: 9191}\n"
    )
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "ask", "namespace": "shop"},
        "spec": {"action": "CUSTOM", "provider": {"name": "oap"}, "rules": [{}]},
    }
    with whole(tmp_path / "data", "--mesh-config", str(file)) as running:
        running.apply(NAMESPACE, policy)

        def unknown() -> bool:
            status = running.get("AuthorizationPolicy", "shop", "ask").get("status", {})
            return "IST0101" in {one["type"]["code"] for one in status.get("validationMessages", ())}

        until(unknown, "the status says that there is no such provider")
        running.apply({**policy, "spec": {**policy["spec"], "provider": {"name": "opa"}}})  # type: ignore[dict-item]
        until(lambda: not unknown(), "the provider of the file is known")
    file.write_text("outboundTrafficPolicy: {mode: NEVER}\n")
    with Process("controlplane", "--data-dir", str(tmp_path / "other"), "--mesh-config", str(file)) as refused:
        assert refused.end() == 1
    assert f"{file}:1: MeshConfig: outboundTrafficPolicy.mode" in refused.output


def test_files_are_a_source_and_read_only(tmp_path: Path) -> None:
    directory = tmp_path / "resources"
    directory.mkdir()
    file = directory / "shop.yaml"
    file.write_text(yaml.safe_dump_all([NAMESPACE, routes(30)]))
    with whole(tmp_path / "data", "--config-dir", str(directory)) as running:

        def weight() -> int | None:
            found = running.get("VirtualService", "shop", "reviews")
            return None if found is None else found["spec"]["http"][0]["route"][0]["weight"]

        until(lambda: weight() == 30, "what comes from files is served")
        first = running.get("VirtualService", "shop", "reviews")["metadata"]
        assert first["annotations"]["mizzen.io/origin"].startswith(str(file))
        with pytest.raises(ApiError, match=r"shop\.yaml"):
            running.apply(routes(50))
        file.write_text(yaml.safe_dump_all([NAMESPACE, routes(40)]))
        until(lambda: weight() == 40, "the file has changed")
        second = running.get("VirtualService", "shop", "reviews")["metadata"]
        assert (second["generation"], second["uid"]) == (2, first["uid"])
        assert second["creationTimestamp"] == first["creationTimestamp"]
        odd = [routes(41), *(routes(50) for _ in range(3))]
        for number, document in enumerate(odd[1:]):
            document["metadata"]["name"] = f"odd-{number}"
            document["spec"]["hosts"] = [f"odd-{number}"]
        odd[1]["status"] = {"conditions": ["x"]}
        odd[2]["metadata"]["annotations"] = None
        odd[3]["status"] = {"validationMessages": 2**80}
        file.write_text(yaml.safe_dump_all([NAMESPACE, *odd]))
        until(lambda: weight() == 41, "odd things in a file hurt nobody")
        until(lambda: running.get("VirtualService", "shop", "odd-1") is not None, "they are in effect")
        file.write_text(yaml.safe_dump_all([NAMESPACE]))
        until(lambda: weight() is None, "it is gone")
        running.apply(routes(50))
        assert weight() == 50
        found = running.get("VirtualService", "shop", "reviews")
        with pytest.raises(ApiError, match="list of objects"):
            path = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/reviews/status"
            running.api.request("PUT", path, {**found, "status": {"conditions": ["x"]}})


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_a_workload_that_is_not_well_gets_no_requests(kind: str, tmp_path: Path) -> None:
    """Its own sidecar probes it, and says so by HDS."""
    if kind == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with whole(tmp_path / "data") as mesh, ExitStack() as stack:
        mesh.apply(NAMESPACE)
        port, proxy_port, admin = free_ports(3)
        app = Named("well")
        stack.callback(app.close)
        mesh.apply(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadGroup",
                "metadata": {"name": "frail-v1", "namespace": "shop"},
                "spec": {
                    "metadata": {"labels": {"app": "frail"}},
                    "template": {"ports": {"http": port}, "serviceAccount": "frail"},
                    "probe": {
                        "periodSeconds": 1,
                        "failureThreshold": 1,
                        "httpGet": {"path": "/ready", "port": app.server_address[1]},
                    },
                },
            }
        )
        text = mesh.mizzen(
            "bootstrap", "--namespace", "shop", "--service", "frail", "--address", "127.0.4.1", "--port", str(port), "--app",
            f"127.0.0.1:{app.server_address[1]}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
        )  # fmt: skip
        bootstrap = yaml.safe_load(text)
        assert "hds_config" in bootstrap
        running = start(kind, bootstrap, {"admin": admin, "proxy": proxy_port}, tmp_path / "frail")
        stack.callback(running.stop)

        def health() -> str:
            items = mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")["items"]
            conditions = [one for item in items for one in item.get("status", {}).get("conditions", ())]
            return next((one["status"] for one in conditions if one["type"] == "Healthy"), "")

        def call() -> int:
            return get(proxy_port, f"http://frail:{port}/", host=f"frail:{port}")[0]

        until(lambda: health() == "True", "the workload is well", timeout=30)
        until(lambda: call() == 200, "it answers")
        app.status = 500
        until(lambda: health() == "False", "it is not well", timeout=30)
        until(lambda: call() == 503, "nobody is sent there")
        mesh.kill()
        mesh.start()
        app.status = 302
        until(lambda: health() == "True", "a control plane that comes back hears that it is well again", timeout=60)
        until(lambda: call() == 200, "it answers again")
