"""A workload's own sidecar probes it, and tells the control plane: who is ill gets no traffic until it is well again."""

from __future__ import annotations

import http.server
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.workload_probe import probe_cluster
from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.bootstrap import parse_bootstrap
from tests.controlplane.test_whole import NAMESPACE, Named
from tests.controlplane.whole import Whole, whole
from tests.differential.proxies import start
from tests.running import free_ports, get, until


class Moody(http.server.ThreadingHTTPServer):
    """Answers requests with 200, and probes with ``status``."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.status = 503
        self.probes: list[str] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                probe = self.path == "/ready"
                if probe:
                    server.probes.append(self.headers["user-agent"])
                body = name.encode()
                self.send_response(server.status if probe else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy that ends closes its connections as it likes."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join(5)


def health(mesh: Whole, version: str) -> dict[str, Any]:
    """The condition of the one workload of that version."""
    items = mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")["items"]
    for item in items:
        if item["spec"]["labels"]["version"] == version:
            for condition in item.get("status", {}).get("conditions", ()):
                if condition["type"] == "Healthy":
                    return dict(condition)
    return {}


def test_who_is_ill_gets_no_traffic_until_it_is_well_again(tmp_path: Path) -> None:
    with whole(tmp_path / "mesh") as mesh, ExitStack() as stack:
        mesh.apply(NAMESPACE)
        port = free_ports(1)[0]
        proxy_ports: dict[str, int] = {}

        def add(service: str, version: str, address: str, app: int, *options: str) -> None:
            proxy_port, admin = free_ports(2)
            text = mesh.mizzen(
                "bootstrap", "--namespace", "shop", "--service", service, "--version", version, "--address", address,
                "--port", str(port), "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port),
                "--admin-port", str(admin), *options,
            )  # fmt: skip
            document = yaml.safe_load(text)
            for cluster in document["static_resources"]["clusters"]:
                for check in cluster.get("health_checks", ()):  # what takes ten seconds in life takes less here
                    check |= dict.fromkeys(("interval", "no_traffic_interval", "no_traffic_healthy_interval"), "0.05s")
            running = start("sidecar", document, {"admin": admin}, tmp_path / f"{service}-{version}")
            stack.callback(running.stop)
            proxy_ports[service + version] = proxy_port

        moody, steady, page = Moody("v1"), Named("v2"), Named("page")
        for app in (moody, steady, page):
            stack.callback(app.close)
        add("reviews", "v1", "127.0.2.11", moody.server_address[1], "--health-path", "/ready")
        labels = {"app": "reviews", "version": "v2"}
        group = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadGroup",
            "metadata": {"name": "reviews-v2", "namespace": "shop"},
            "spec": {
                "metadata": {"labels": labels},
                "template": {"ports": {"http": port}, "serviceAccount": "reviews"},
                "probe": {"tcpSocket": {"port": steady.server_address[1]}},
            },
        }
        mesh.apply(group)
        add("reviews", "v2", "127.0.2.12", steady.server_address[1])
        add("page", "v1", "127.0.2.13", page.server_address[1])

        def answers() -> set[str]:
            url, host = f"http://reviews:{port}/", f"reviews:{port}"
            found = {get(proxy_ports["pagev1"], url, host=host)[::2] for _ in range(20)}
            assert {status for status, _ in found} <= {200}
            return {body for _, body in found}

        mesh.settle(3)
        until(lambda: health(mesh, "v1").get("status") == "False", "the first probe failed")
        assert "readiness probe of 127.0.0.1" in health(mesh, "v1")["message"]
        until(lambda: answers() == {"v2"}, "who is ill gets nothing")
        moody.status = 302
        until(lambda: health(mesh, "v1")["status"] == "True", "it is well")
        until(lambda: answers() == {"v1", "v2"}, "both answer")
        moody.status = 500
        until(lambda: health(mesh, "v1")["status"] == "False", "it is ill again")
        until(lambda: answers() == {"v2"}, "who is ill gets nothing again")
        assert health(mesh, "v2")["status"] == "True"  # by the probe that its group has
        mesh.kill()
        mesh.start()
        moody.status = 200
        until(lambda: health(mesh, "v1")["status"] == "True", "a control plane that comes back is told", timeout=60)


@pytest.mark.parametrize(
    ("probe", "check"),
    [
        ({"httpGet": {"port": 80}}, "http_health_check"),
        ({"httpGet": {"port": 80, "scheme": "HTTPS", "host": "app.test", "path": "/x",
                      "httpHeaders": [{"name": "Host", "value": "h"}, {"name": "a", "value": "b"}]},
          "timeoutSeconds": 2, "periodSeconds": 3, "failureThreshold": 4, "successThreshold": 5}, "http_health_check"),
        ({"tcpSocket": {"port": 80, "host": "::1"}}, "tcp_health_check"),
        ({"grpc": {"port": 80, "service": "s"}}, "grpc_health_check"),
    ],
)  # fmt: skip
def test_every_probe_is_a_cluster_that_a_sidecar_takes(probe: dict[str, Any], check: str) -> None:
    cluster = probe_cluster(probe)
    assert check in cluster["health_checks"][0]
    root, context = load_bootstrap({"static_resources": {"clusters": [cluster]}})
    with context:
        (parsed,) = parse_bootstrap(root).static_resources.clusters
    assert parsed.health_check is not None and parsed.health_check.interval == probe.get("periodSeconds", 10)
    assert parsed.health_check.unhealthy_threshold == probe.get("failureThreshold", 3)


def test_a_command_is_no_probe_for_a_sidecar() -> None:
    with pytest.raises(Exception, match="a sidecar runs no commands: use httpGet, tcpSocket or grpc"):
        probe_cluster({"exec": {"command": ["true"]}})
