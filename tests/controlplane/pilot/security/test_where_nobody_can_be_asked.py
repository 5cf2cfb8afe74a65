"""A provider that is asked over HTTP knows only requests. Where there may be some that the proxy does not see, nobody passes."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2

from controlplane.pilot.generators import LISTENER
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import decoded, mesh, proxy
from tests.controlplane.pilot.planes import PLANES, running
from tests.controlplane.pilot.scene import Scene, sidecar

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec: {selector: {app: own}, ports: [{name: any, port: 9081}, {name: tcp-x, port: 9082}, {name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ask, namespace: shop}
spec: {selector: {app: ask}, ports: [{name: http, port: 8000}]}
"""
PROVIDERS = [{"name": "web", "envoyExtAuthzHttp": {"service": "ask.shop.svc.cluster.local", "port": 8000}}]
MESH = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: '{{"extensionProviders": {str(PROVIDERS).replace("'", '"')}}}'}}
"""
ASKING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asking, namespace: shop}
spec:
  selector: {matchLabels: {app: own}}
  action: CUSTOM
  provider: {name: web}
  rules: [{to: [{operation: {paths: ["/admin*"]}}]}]
"""
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: a, jwksUri: "https://keys.example/jwks"}]}
"""


def _documents(*more: str) -> str:
    return "---\n".join((SERVICES, MESH, *more))


def _denied(pilot: Pilot, node: Any) -> dict[tuple[int, str], bool]:
    """Of the filter chains without requests, by the end of their names and port: whether a filter denies what it is for."""
    found: dict[tuple[int, str], bool] = {}
    for name, listener in decoded(pilot, node, LISTENER).items():
        for chain in listener.filter_chains:
            filters = [one.name for one in chain.filters]
            if "envoy.filters.network.tcp_proxy" not in filters or chain.name.endswith("blackhole"):
                continue
            port = chain.filter_chain_match.destination_port.value or int(name.rpartition("_")[2] or 0)
            rules = [
                rbac_pb2.RBAC.FromString(one.typed_config.value).rules
                for one in chain.filters
                if one.name == "envoy.filters.network.rbac"
            ]
            denies = any("-deny-due-to-bad-CUSTOM-action" in policy for each in rules for policy in each.policies)
            place = (port, chain.name.rpartition("_")[2])
            assert found.setdefault(place, denies) is denies
    return found


def test_connections_of_unknown_protocol_are_denied() -> None:
    pilot = mesh(_documents(ASKING))
    known: dict[str, Any] = {"labels": {"app": "own"}, "SDS_AGENT": "true"}
    assert _denied(pilot, proxy("own-1", "shop", **known)) == {(9081, "tcp"): True, (9082, "tcp"): False}
    captured = decoded(pilot, proxy("own-1", "shop", INTERCEPTION_MODE="REDIRECT", **known), LISTENER)["virtualInbound"]
    for chain in captured.filter_chains:
        tcp = chain.filters[-1].name == "envoy.filters.network.tcp_proxy"
        if tcp and chain.filter_chain_match.destination_port.value in (0, 9081):
            assert chain.filters[0].name == "envoy.filters.network.rbac", chain.filter_chain_match


def test_it_is_told_what_to_do() -> None:
    pilot = mesh(_documents(ASKING, TOKENS))
    told: dict[str, list[str]] = {"asking": [], "tokens": []}
    for words, (cause,) in pilot.left_out(proxy("own-1", "shop", labels={"app": "own"})):
        assert words.endswith("If it is HTTP say so: appProtocol: http, or a port's name that begins with http")
        told[cause.name].append(words)
    denied, passed = told["asking"]
    assert "port 9081 of Service/shop/own: connections that CUSTOM's rules may be for are denied" in denied
    assert "port 9082 of Service/shop/own: a provider with HTTP is not asked about connections" in passed
    assert told["tokens"] == []  # in plain text requests are found, whoever sends them
    known = proxy("own-1", "shop", labels={"app": "own"}, SDS_AGENT="true")
    (tokens,) = [words for words, (cause,) in pilot.left_out(known) if cause.name == "tokens"]
    assert "port 9081 of Service/shop/own: over mutual TLS tokens are looked at only where clients say that" in tokens
    assert pilot.left_out(proxy("ask-1", "shop", labels={"app": "ask"})) == []


@pytest.mark.parametrize("plane", PLANES)
def test_who_does_not_begin_with_a_request_is_turned_away(plane: str, tmp_path: Path) -> None:
    scene = Scene(SERVICES, ASKING, mesh={"extensionProviders": PROVIDERS})
    with running(plane, scene, sidecar("own-1", LABELS={"app": "own"}), tmp_path) as made:
        answers = {}
        for name, port in made.ports.items():
            if name.rpartition("_")[2] not in ("9081", "9082"):
                continue
            answers[name.rpartition("_")[2]] = b""
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", port), timeout=10) as client,
            ):
                client.sendall(b"\x00\x01\x02\x03\r\n\r\n")
                answers[name.rpartition("_")[2]] = client.recv(100)
        assert answers["9081"] == b"" and answers["9082"] != b""
