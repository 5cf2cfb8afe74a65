"""Who is told of a change: everybody who gets something else by it, whoever else becomes, or was, like them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import permutations
from typing import Any

import pytest

from controlplane.model.proxy import Proxy
from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import TYPES
from controlplane.xds.hub import Hub
from controlplane.xds.session import Session
from tests.controlplane.pilot.mesh import change, mesh, proxy

SERVICE = """
kind: Service
metadata: shop/reviews
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
"""
OF_V1 = "selector: {matchLabels: {version: v1}}, "
CAPTURED: dict[str, Any] = {"INTERCEPTION_MODE": "REDIRECT", "SDS_AGENT": "true"}
REPLICAS = [
    proxy(f"r-{version}", "shop", labels={"app": "reviews", "version": version}, address=f"10.0.0.{number}", **CAPTURED)
    for number, version in enumerate(("v1", "v2", "v3"), 1)
]


def allow(account: str, which: str = "") -> str:
    rule = f'{{from: [{{source: {{principals: ["cluster.local/ns/shop/sa/{account}"]}}}}]}}'
    return f"kind: AuthorizationPolicy\nmetadata: shop/{account}\nspec: {{{which}rules: [{rule}]}}\n"


class Recorded(Session):
    """A session that keeps which types it was told of."""

    def __init__(self, hub: Hub, node: Proxy) -> None:
        async def send(message: bytes) -> None:
            raise AssertionError("nothing was subscribed to")

        super().__init__(hub, node, None, send, incremental=True, confidential=True)
        self.types: set[str] = set()

    def changed(self, type_urls: Collection[str], narrowed: Callable[[str, Collection[str]], Collection[str]]) -> None:
        self.types |= set(type_urls)


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        (allow("page") + "---\n" + allow("admin", OF_V1), "", ResourceKey("AuthorizationPolicy", "shop", "admin")),
        (
            allow("page") + "---\n" + allow("admin", OF_V1),
            allow("admin", "selector: {matchLabels: {version: v9}}, "),
            None,
        ),
        (
            f"kind: RequestAuthentication\nmetadata: shop/r\n"
            f"spec: {{{OF_V1}jwtRules: [{{issuer: a, jwksUri: 'https://a.c/x'}}]}}\n",
            "",
            ResourceKey("RequestAuthentication", "shop", "r"),
        ),
        (
            f"kind: PeerAuthentication\nmetadata: shop/p\nspec: {{{OF_V1}mtls: {{mode: DISABLE}}}}\n",
            "",
            ResourceKey("PeerAuthentication", "shop", "p"),
        ),
        (
            "kind: EnvoyFilter\nmetadata: shop/f\n"
            "spec: {workloadSelector: {labels: {version: v1}}, configPatches: [{applyTo: LISTENER, match: {context: ANY},"
            " patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 5}}}]}\n",
            "",
            ResourceKey("EnvoyFilter", "shop", "f"),
        ),
    ],
    ids=["policy gone", "policy of others now", "tokens", "peers", "patch"],
)
def test_proxies_that_become_alike_are_told_each_for_itself(before: str, after: str, gone: ResourceKey | None) -> None:
    """The sessions of a hub are a set: whichever comes first must not answer for the others."""
    for order in permutations(REPLICAS):
        pilot = mesh(f"{SERVICE}---\n{before}")
        hub = Hub(pilot)
        sessions = [Recorded(hub, node) for node in order]
        hub.sessions = dict.fromkeys(sessions)  # type: ignore[assignment]  # for its order
        had = [_resources(pilot, node) for node in order]
        hub.push(change(pilot, after, [gone] if gone is not None else ()))
        lost = 0
        for session, old in zip(sessions, had, strict=True):
            new = _resources(pilot, session.proxy)
            other = {type_url for type_url in TYPES if new[type_url] != old[type_url]}
            assert other <= session.types, f"{session.proxy.name} of {[node.name for node in order]} is not told"
            lost += bool(other)
        assert lost, "the change is nothing to anybody"


def _resources(pilot: Any, node: Proxy) -> dict[str, Mapping[str, str]]:
    return {url: {name: one.version for name, one in pilot.resources(node, url).items()} for url in TYPES}


def test_a_proxy_that_cannot_be_told_keeps_nobody_else_from_it() -> None:
    class Failing(Recorded):
        def changed(
            self, type_urls: Collection[str], narrowed: Callable[[str, Collection[str]], Collection[str]]
        ) -> None:
            raise RuntimeError("broken")

    pilot = mesh(SERVICE)
    hub = Hub(pilot)
    sessions = [kind(hub, node) for kind, node in zip((Failing, Recorded), REPLICAS, strict=False)]
    hub.sessions = dict.fromkeys(sessions)  # type: ignore[assignment]  # for its order
    hub.push(change(pilot, allow("page")))
    assert sessions[1].types
