"""What requests have offered by ALPN in their clusters' stead (`envoy.network.application_protocols`), with both proxies."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import explain_command
from sidecar.listener.client_hello import parse_client_hello
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, start
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.transport.serving import SERVER

TYPES = "type.googleapis.com/envoy.extensions."
FILTER = "envoy.filters.http.set_filter_state"
KEY = "envoy.network.application_protocols"


def setting(*texts: str) -> dict[str, Any]:
    """A configuration of the filter."""
    values = [{"object_key": KEY, "format_string": {"text_format_source": {"inline_string": text}}} for text in texts]
    return {"@type": TYPES + "filters.http.set_filter_state.v3.Config", "on_request_headers": values}


def route(path: str, *configs: dict[str, Any], **action: Any) -> dict[str, Any]:
    """To the one cluster, with that to say to the filter."""
    said = {"typed_per_filter_config": {FILTER: configs[0]}} if configs else {}
    return {"match": {"path": path}, "route": action or {"cluster": "up"}, **said}


WEIGHTED = {
    "clusters": [{"name": "up", "weight": 1, "typed_per_filter_config": {FILTER: setting("of-the-weighted")}}],
}
ROUTES = [
    route("/plain"),
    route("/labelled", setting("istio-http/1.1,istio")),
    route("/other", setting("istio-h2,istio")),
    route("/twice", setting("first", "second")),
    route("/empty", setting()),
    route("/weighted", weighted_clusters=WEIGHTED),
    route("/bare", setting("istio-http/1.1,istio"), cluster="bare"),
]
ASKED = ("/plain", "/labelled", "/other", "/labelled", "/twice", "/empty", "/weighted", "/bare", "/plain")


def listener(port: int, base: dict[str, Any], disabled: bool) -> dict[str, Any]:
    """Of the routes, behind a filter that is configured so."""
    manager = {
        "@type": TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": ROUTES}]},
        "http_filters": [
            {"name": FILTER, "disabled": disabled, "typed_config": base},
            {"name": "router", "typed_config": {"@type": TYPES + "filters.http.router.v3.Router"}},
        ],
    }
    return {
        "name": f"of {port}",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def bootstrap(ports: dict[str, int], upstream: int) -> dict[str, Any]:
    """Two listeners, behind whose filters is nothing set, or something."""
    tls = {
        "@type": TYPES + "transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["usual", "istio"]},
    }
    up = {**cluster("up", upstream), "transport_socket": {"name": "tls", "typed_config": tls}}
    listeners = [
        listener(ports["routes"], setting(), disabled=True),
        listener(ports["everywhere"], setting("everywhere"), disabled=False),
    ]
    return {
        "admin": {"address": address(ports["admin"])},
        "static_resources": {"listeners": listeners, "clusters": [up, {**up, "name": "bare"}]},
    }


class Upstream(socketserver.BaseRequestHandler):
    """Answers every request with the number of its connection, and with what that has offered."""

    def handle(self) -> None:
        server: Any = self.server
        hello = None
        while hello is None:
            hello = parse_client_hello(self.request.recv(20_000, socket.MSG_PEEK), 20_000)
        said = f"{next(server.numbers)} {','.join(hello.application_protocols)}"
        with server.context.wrap_socket(self.request, server_side=True) as secure:
            while secure.recv(20_000):
                secure.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {len(said)}\r\n\r\n{said}".encode())


@contextmanager
def serving(directory: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*SERVER.write(directory, "server"))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream) as server:
        server.daemon_threads = True
        server.context, server.numbers = context, itertools.count(1)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def answers(port: int) -> list[tuple[str, str]]:
    """What is said to the requests, one after the other on one connection."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    found = []
    for path in ASKED:
        client.request("GET", path)
        found.append((path, client.getresponse().read().decode()))
    client.close()
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """By proxy and listener."""
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for kind in (ENVOY, SIDECAR):
        directory = tmp_path_factory.mktemp(kind)
        free = FreePorts()
        ports = {name: free.take() for name in ("admin", "routes", "everywhere")}
        with serving(directory) as upstream:
            proxy = start(kind, bootstrap(ports, upstream), ports, directory / "proxy")
            try:
                found[kind] = {name: answers(ports[name]) for name in ("routes", "everywhere")}
            finally:
                proxy.stop()
    return found


def test_both_offer_the_same_over_connections_of_their_own(seen: Any) -> None:
    assert seen[ENVOY] == seen[SIDECAR]


def test_what_routes_say_stands_in_place_of_what_clusters_say(seen: Any) -> None:
    usual, of_all = "usual,istio", "everywhere"
    said = ["istio-http/1.1,istio", "istio-h2,istio", "istio-http/1.1,istio", "second"]
    for name, otherwise in (("routes", usual), ("everywhere", of_all)):
        offered = [answer.partition(" ")[2] for _, answer in seen[SIDECAR][name]]
        assert offered == [otherwise, *said, otherwise, "of-the-weighted", said[0], otherwise]


def test_explanations_say_what_is_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(bootstrap({"admin": 1, "routes": 2, "everywhere": 3}, 4)))
    for path, port, expected in (
        ("/plain", 2, ["usual", "istio"]),
        ("/labelled", 2, ["istio-http/1.1", "istio"]),
        ("/weighted", 2, ["of-the-weighted"]),
        ("/plain", 3, ["everywhere"]),
    ):
        asked = ["--config", str(config), "--format", "json", "GET", f"http://127.0.0.1:{port}{path}"]
        assert explain_command.main(asked) == 0
        steps = json.loads(capsys.readouterr().out)
        (endpoint,) = next(step["facts"]["endpoints"] for step in steps if "endpoints" in step.get("facts", {}))
        assert endpoint["alpn"] == expected
