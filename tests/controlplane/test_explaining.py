"""`mizzen explain` of a mesh that runs: what is told is what happens, with our sidecars and with real Envoy."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.controlplane.test_whole import SUBSETS, Shop, routes
from tests.controlplane.whole import whole
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.running import until

_POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - to: [{operation: {paths: ["/open*"]}}]
"""


@pytest.fixture(scope="module", params=["envoy", "sidecar"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if request.param == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with whole(tmp_path_factory.mktemp("mesh")) as running, ExitStack() as stack:
        made = Shop(running, request.param, tmp_path_factory.mktemp("shop"), stack)
        running.settle(3)
        yield made


def test_what_is_told_is_what_happens(shop: Shop) -> None:
    shop.mesh.apply(SUBSETS, routes(100), _POLICY)

    def status(path: str) -> int:
        try:
            return shop.call(path)[0]
        except http.client.HTTPException:  # Envoy ends connections of a listener that has changed
            return 0

    until(lambda: (status("/open"), status("/closed")) == (200, 403), "the policy is enforced")
    asked = ("explain", "--from", "shop/page", "--to", "reviews", "GET")
    opened = shop.mesh.mizzen(*asked, "/open")
    assert "[VirtualService shop/reviews]" in opened and "[AuthorizationPolicy shop/readers, rule 0]" in opened, opened
    assert "shop/reviews-v1-127-0-2-1" in opened, opened
    closed = shop.mesh.mizzen(*asked, "/closed", status=3)
    assert "permission path prefix '/open' is not met: it is '/closed'" in closed, closed
    assert closed.strip().splitlines()[-1].startswith("verdict: 403 'RBAC: access denied'"), closed
