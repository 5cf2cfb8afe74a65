"""No request fails when a workload's sidecar ends as it should and comes back, within the grace period and after it."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.controlplane.test_whole import NAMESPACE, Named
from tests.controlplane.whole import Whole, whole
from tests.running import Process, free_ports, get, until


def entry(mesh: Whole, address: str) -> dict[str, Any]:
    items = mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")["items"]
    return next((dict(item) for item in items if item["spec"]["address"] == address), {})


def annotations(mesh: Whole, address: str) -> dict[str, str]:
    return dict(entry(mesh, address)["metadata"]["annotations"])


def test_no_request_fails_when_a_workload_ends_and_comes_back(tmp_path: Path) -> None:
    with whole(tmp_path / "mesh", "--grace", "4") as mesh, ExitStack() as stack:
        mesh.apply(NAMESPACE)
        port = free_ports(1)[0]
        proxies: dict[str, tuple[str, int]] = {}

        def add(service: str, version: str, address: str) -> None:
            app = Named(f"{service} {version}")
            stack.callback(app.close)
            proxy_port, admin = free_ports(2)
            text = mesh.mizzen(
                "bootstrap", "--namespace", "shop", "--service", service, "--version", version, "--address", address,
                "--port", str(port), "--app", f"127.0.0.1:{app.server_address[1]}", "--proxy-port", str(proxy_port),
                "--admin-port", str(admin),
            )  # fmt: skip
            path = tmp_path / f"{service}-{version}.yaml"
            path.write_text(text)
            proxies[f"{service} {version}"] = (str(path), proxy_port)

        def start(name: str) -> Process:
            drain = ("--drain-announce-s", "1", "--drain-time-s", "2")
            running = Process("sidecar", "--config", proxies[name][0], *drain)
            stack.callback(running.__exit__)
            return running

        add("reviews", "v1", "127.0.2.21")
        add("reviews", "v2", "127.0.2.22")
        add("page", "v1", "127.0.2.23")
        first, _, _ = (start(name) for name in proxies)

        def call() -> tuple[int, str]:
            status, _, body = get(proxies["page v1"][1], f"http://reviews:{port}/", host=f"reviews:{port}")
            return status, body

        def ready() -> bool:
            try:
                return {call() for _ in range(10)} == {(200, "reviews v1"), (200, "reviews v2")}
            except OSError:
                return False

        until(ready, "both answer", timeout=40)
        seen: list[tuple[int, str]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                seen.append(call())

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            first.child.terminate()
            assert first.child.wait(20) == 0
            until(lambda: "istio.io/disconnectedAt" in annotations(mesh, "127.0.2.21"), "its stream has ended")
            uid = entry(mesh, "127.0.2.21")["metadata"]["uid"]
            first = start("reviews v1")
            count = len(seen)
            until(lambda: (200, "reviews v1") in seen[count:], "it answers again", timeout=40)
            assert entry(mesh, "127.0.2.21")["metadata"]["uid"] == uid
            first.child.terminate()
            assert first.child.wait(20) == 0
            until(lambda: not entry(mesh, "127.0.2.21"), "its grace period is over")
            first = start("reviews v1")
            count = len(seen)
            until(lambda: (200, "reviews v1") in seen[count:], "it answers once more", timeout=40)
            assert entry(mesh, "127.0.2.21")["metadata"]["uid"] != uid
        finally:
            stop.set()
            asking.join(20)
        assert {status for status, _ in seen} == {200}, json.dumps(seen)
