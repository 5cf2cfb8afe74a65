"""Keys that proxies fetch themselves (`jwksUri`), over the cluster that is made for that."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from controlplane.discovery.openid import OpenIdDiscovery
from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import CLUSTER
from controlplane.pilot.security import key_sets
from controlplane.pilot.security.request_authentication import NO_KEYS
from tests.controlplane.discovery.issuers import Issuers, issuers
from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.scene import Scene, gateway, resources_of, sidecar
from tests.controlplane.pilot.security.enforcing import enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import Facts
from tests.controlplane.pilot.security.test_tokens import ALICE, ISSUER
from tests.controlplane.pilot.security.tokens import authentication, key_set, token
from tests.running import until

POLICY = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: own}}}}, jwtRules: [{{issuer: a, jwksUri: "{uri}"}}]}}
"""


@contextlib.contextmanager
def keys() -> Iterator[str]:
    """The address of a server of keys."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = key_set("one").encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/keys"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", PLANES)
def test_keys_are_fetched_over_a_cluster_of_their_own(kind: str, tmp_path: Path) -> None:
    (workload,) = some_workloads(1)
    with keys() as uri:
        tables = {workload: [authentication({"issuer": ISSUER, "jwksUri": uri})]}
        with enforcing(kind, tables, tmp_path) as proxy:
            facts = Facts(host="own.example")
            until(lambda: proxy.answer(workload, facts, token(ALICE))[0] == 200, "the keys are there")
            assert proxy.answer(workload, facts, token(ALICE, "two"))[0] == 401
            assert proxy.answer(workload, facts)[0] == 200


def _clusters(uri: str, more: str = "") -> dict[str, object]:
    scene = Scene(POLICY.format(uri=uri), *([more] if more else ()))
    made = scene.pilot.resources(sidecar("own-1", LABELS={"app": "own"}), CLUSTER)
    return {name: one.value for name, one in made.items() if name.startswith("jwks|")}


def test_over_https_the_servers_name_is_verified() -> None:
    (made,) = _clusters("https://issuer.example/keys").values()
    cluster = cluster_pb2.Cluster.FromString(made)  # type: ignore[arg-type]
    assert cluster.name == "jwks|443|https|issuer.example"
    context = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
    (name,) = context.common_tls_context.validation_context.match_typed_subject_alt_names
    assert (context.sni, name.matcher.exact) == ("issuer.example", "issuer.example")
    assert context.common_tls_context.validation_context.trusted_ca.filename


def test_a_service_of_the_mesh_is_asked_like_any_other() -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: keys, namespace: shop}\n"
        "spec: {ports: [{name: http, port: 80}], selector: {app: keys}}\n"
    )
    assert _clusters("http://keys.shop.svc.cluster.local/jwks", service) == {}
    assert list(_clusters("http://keys.shop.svc.cluster.local:81/jwks", service)) == [
        "jwks|81|http|keys.shop.svc.cluster.local"
    ]


def test_the_policy_is_the_cause_and_only_its_workloads_have_the_cluster() -> None:
    scene = Scene(POLICY.format(uri="https://issuer.example:8443/keys"))
    node = sidecar("own-1", LABELS={"app": "own"})
    name = "jwks|8443|https|issuer.example"
    assert scene.pilot.causes(node, CLUSTER, name) == (ResourceKey("RequestAuthentication", "shop", "tokens"),)
    assert name not in scene.pilot.resources(sidecar("other-1", LABELS={"app": "other"}), CLUSTER)
    assert name in scene.pilot.resources(gateway({"app": "own"}), CLUSTER)


@pytest.mark.parametrize("kind", PLANES)
def test_keys_of_issuers_that_are_asked_for_them(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been found over TLS, and an issuer of which nothing is known: nothing of it is accepted."""
    unknown, known = some_workloads(2)
    with issuers(tmp_path) as server:
        monkeypatch.setattr(key_sets, "SYSTEM_ROOTS", str(server.roots))
        found = asyncio.run(_discovered(server, tmp_path / "kept"))
        tables = {
            unknown: [authentication({"issuer": server.address})],
            known: [authentication({"issuer": server.address, "jwksUri": found})],
        }
        good = token({"iss": server.address, "sub": "alice"})
        with enforcing(kind, tables, tmp_path) as proxy:
            facts = Facts(host="own.example")
            until(lambda: proxy.answer(known, facts, good)[0] == 200, "the keys are there")
            assert proxy.answer(known, facts, token({"iss": server.address}, "two"))[0] == 401
            assert proxy.answer(unknown, facts, good)[0] == 401
            assert proxy.answer(unknown, facts)[0] == 200


async def _discovered(server: Issuers, kept: Path) -> str:
    discovery = OpenIdDiscovery(lambda _: None, lambda: None, kept, context=server.context)
    (resource,) = resources_of(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a, namespace: b}\n"
        f'spec: {{jwtRules: [{{issuer: "{server.address}"}}]}}\n'
    )
    discovery.resolved({resource.key: resource})
    running = asyncio.create_task(discovery.run())
    await discovery.asked(10)
    running.cancel()
    filled = discovery.resolved({resource.key: resource})[resource.key]
    assert filled is not None
    found = filled.spec.jwt_rules[0].jwks_uri
    assert isinstance(found, str)
    return found


def test_nobody_has_the_private_key_of_keys_that_verify_nothing() -> None:
    """The point is on the curve, and its x is the hash of a sentence."""
    (key,) = json.loads(NO_KEYS)["keys"]
    x = hashlib.sha256(b"Mizzen: nobody has the private key of this point, 0").digest()
    assert base64.urlsafe_b64decode(key["x"] + "=") == x
    y = int.from_bytes(base64.urlsafe_b64decode(key["y"] + "="))
    ec.EllipticCurvePublicNumbers(int.from_bytes(x), y, ec.SECP256R1()).public_key()
