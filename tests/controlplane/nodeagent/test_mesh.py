"""A proxy that starts from `mizzen bootstrap --agent-socket` is in the mesh, and stays there while its certificates change."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.controlplane.nodeagent.node import node
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import start
from tests.running import free_ports, until


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_a_proxy_with_an_agent_is_in_the_mesh(kind: str, tmp_path: Path) -> None:
    if kind == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with node(tmp_path) as one:
        one.join("page", lifetime=6)
        with one.agent() as agent:
            proxy_port, admin, inbound, app = free_ports(4)
            text = one.mesh.mizzen(
                "bootstrap", "--namespace", "shop", "--service", "page", "--address", "127.0.2.9", "--port", str(inbound),
                "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
                "--agent-socket", str(one.socket("page")),
            )  # fmt: skip
            ports = {"admin": admin, "proxy": proxy_port, "inbound": inbound}
            running = start(kind, yaml.safe_load(text), ports, tmp_path / kind)
            try:
                one.mesh.settle(1)
                (entry,) = one.mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")[
                    "items"
                ]
                assert entry["spec"]["labels"]["security.istio.io/tlsMode"] == "istio"
                acks = agent.metric("mizzen_agent_sds_acks_total", workload="shop/page")
                assert acks >= 2, "certificate and roots"
                until(
                    lambda: agent.metric("mizzen_agent_sds_acks_total", workload="shop/page") >= acks + 3,
                    "three certificates later", timeout=40,
                )  # fmt: skip
                one.mesh.settle(1)
                assert agent.metric("mizzen_agent_sds_nacks_total", workload="shop/page") == 0
            finally:
                running.stop()


def test_an_agent_has_the_identity_alone(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        words = one.mesh.mizzen(
            "bootstrap", "--namespace", "shop", "--service", "page", "--address", "127.0.2.9", "--port", "9080",
            "--app", "127.0.0.1:8080", "--agent-socket", "/run/agent.sock", "--token", "x", status=2,
        )  # fmt: skip
        assert "the node agent has the identity" in words
