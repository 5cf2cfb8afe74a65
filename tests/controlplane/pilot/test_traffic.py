"""Requests through a proxy that has everything from here over ADS: to services, to addresses, while the mesh changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.answering import Answering
from tests.controlplane.pilot.behaviour import send
from tests.controlplane.pilot.mesh import resources
from tests.controlplane.xds.messages import bootstrap
from tests.controlplane.xds.plain_mesh import Served
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, start
from tests.running import free_ports, until

SERVICE = (
    "kind: Service\nmetadata: shop/{name}\nspec: {{ports: [{{name: http, port: 80}}], selector: {{app: {name}}}}}\n"
)
WORKLOAD = (
    "kind: WorkloadEntry\nmetadata: shop/{name}-{version}\n"
    "spec: {{address: 127.0.0.1, ports: {{http: {port}}}, labels: {{app: {name}, version: {version}}}}}\n"
)


class Setting(NamedTuple):
    """A proxy of the service `own`, whose application is `app`; services behind ``servers``."""

    served: Served
    servers: Answering
    forward: int
    inbound: int

    def tell(self, *texts: str) -> None:
        changed = {resource.key: resource for text in texts for resource in resources(text)}
        self.served.loop.call_soon_threadsafe(self.served.hub.changed, changed)

    def ask(self, host: str, **headers: str) -> str:
        """Who answers, or the status."""
        status, _, body = send(self.forward, host, {"headers": headers})
        return str(json.loads(body)["from"]) if status == 200 else str(status)


@pytest.fixture(params=[ENVOY, SIDECAR])
def setting(request: Any, tmp_path: Path) -> Iterator[Setting]:
    if request.param == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    admin, forward, inbound = free_ports(3)
    with Answering(["v1", "v2", "app", "stranger"]) as servers:
        served = Served(Pilot())
        found = Setting(served, servers, forward, inbound)
        found.tell(
            SERVICE.format(name="reviews"),
            WORKLOAD.format(name="reviews", version="v1", port=servers.ports["v1"]),
            SERVICE.format(name="own"),
            WORKLOAD.format(name="own", version="v1", port=inbound),
        )
        node = "sidecar~127.0.0.1~own-v1.shop~shop.svc.cluster.local"
        document = bootstrap(served.port, admin, delta=True, node=node)
        document["node"]["metadata"].update(
            LABELS={"app": "own"},
            HTTP_PROXY_PORT=str(forward),
            APP_ENDPOINTS={str(inbound): f"127.0.0.1:{servers.ports['app']}"},
        )
        proxy = start(request.param, document, {"admin": admin, "forward": forward, "in": inbound}, tmp_path)
        try:
            until(lambda: served.ask(lambda: len(served.hub.sessions)) > 0 and served.settled(), "it has everything")
            yield found
            assert served.refused == []
        finally:
            proxy.stop()
            served.close()


def test_services_are_reached_by_name_and_through_ones_own_proxy(setting: Setting) -> None:
    until(lambda: setting.ask("reviews") == "v1", "the service answers")
    assert setting.ask("reviews.shop") == "v1"
    assert setting.ask("reviews.shop.svc.cluster.local:80") == "v1"
    assert setting.ask("own") == "app"
    status, _, body = send(setting.inbound, "own", {})
    assert (status, json.loads(body)["from"]) == (200, "app")


def test_unknown_hosts_are_reached_unless_the_registry_is_all(setting: Setting) -> None:
    until(lambda: setting.ask("reviews") == "v1", "the service answers")
    stranger = f"127.0.0.1:{setting.servers.ports['stranger']}"
    assert setting.ask(stranger) == "stranger"
    by_name = f"localhost:{setting.servers.ports['stranger']}"
    until(lambda: setting.ask(by_name) == "stranger", "the name is known")
    assert setting.ask("nobody.invalid") == "503"
    setting.tell(
        "kind: Sidecar\nmetadata: shop/default\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ['*/*']}]}"
    )
    until(lambda: setting.ask(stranger) == "502", "addresses are closed")
    assert setting.ask(by_name) == "502"
    assert setting.ask("reviews") == "v1"


def test_subsets_and_endpoints_follow_changes_and_no_request_fails(setting: Setting) -> None:
    until(lambda: setting.ask("reviews") == "v1", "the service answers")
    ports = setting.servers.ports
    rule = (
        "kind: DestinationRule\nmetadata: shop/reviews\nspec: {host: reviews, trafficPolicy: {loadBalancer: {simple: %s}},"
        " subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"
    )
    route = (
        "kind: VirtualService\nmetadata: shop/reviews\nspec: {hosts: [reviews], http: ["
        "{match: [{headers: {user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]},"
        "{route: [{destination: {host: reviews, subset: v1}}]}]}"
    )
    setting.tell(WORKLOAD.format(name="reviews", version="v2", port=ports["v2"]), rule % "ROUND_ROBIN", route)
    until(setting.served.settled, "everything is acknowledged")
    answers = set()
    for number in range(40):
        if number % 10 == 0:
            setting.tell(rule % ("RANDOM" if number % 20 else "LEAST_REQUEST"))
        answers.add((setting.ask("reviews", user="jason"), setting.ask("reviews")))
    assert answers == {("v2", "v1")}
    setting.tell(WORKLOAD.format(name="reviews", version="v2", port=ports["stranger"]))
    until(lambda: setting.ask("reviews", user="jason") == "stranger", "the endpoint has changed")


def test_mutual_tls_without_identity_sends_nothing(setting: Setting) -> None:
    until(lambda: setting.ask("reviews") == "v1", "the service answers")
    setting.tell(
        "kind: DestinationRule\nmetadata: shop/reviews\nspec: {host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}"
    )
    until(lambda: setting.ask("reviews") == "503", "it is closed")
