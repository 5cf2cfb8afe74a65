"""Action CUSTOM: what a provider is asked about, what it is told, what becomes of its answer, and of none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.asking import Asked, asked_over_grpc, asked_over_http
from tests.controlplane.pilot.security.enforcing import Enforcing, Workload, enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import Facts

HOST = "ask.shop.svc.cluster.local"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: ask, namespace: shop}
spec:
  ports: [{name: http, port: 8000}, {name: grpc, port: 9000}, {name: http-dead, port: 8001}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: case-5}
spec: {egress: [{hosts: [./*]}]}
"""
PROVIDERS = [
    {
        "name": "web",
        "envoyExtAuthzHttp": {
            "service": f"shop/{HOST}",
            "port": 8000,
            "pathPrefix": "/check",
            "timeout": "5s",
            "includeRequestHeadersInCheck": ["X-User", "x-trace-*"],
            "includeAdditionalHeadersInCheck": {"x-from": "mesh"},
            "includeRequestBodyInCheck": {"maxRequestBytes": 100, "allowPartialMessage": True},
            "headersToUpstreamOnAllow": ["x-checked"],
            "headersToDownstreamOnDeny": ["x-checked"],
            "headersToDownstreamOnAllow": ["x-other"],
        },
    },
    {"name": "rpc", "envoyExtAuthzGrpc": {"service": HOST, "port": 9000}},
    {"name": "dead", "envoyExtAuthzHttp": {"service": HOST, "port": 8001, "statusOnError": "503"}},
    {"name": "dead-open", "envoyExtAuthzHttp": {"service": HOST, "port": 8001, "failOpen": True}},
    {"name": "no-such-service", "envoyExtAuthzGrpc": {"service": "nobody.example", "port": 1}},
    {"name": "logs", "envoyFileAccessLog": {"path": "/dev/null"}},
]


def custom(provider: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"action": "CUSTOM", "provider": {"name": provider}, "rules": list(rules) or [{}]}


ADMIN = {"to": [{"operation": {"paths": ["/admin*"]}}]}
TABLES = [
    [custom("web", ADMIN)],
    [custom("rpc")],
    [custom("dead"), {"action": "ALLOW", "rules": [{}]}],
    [custom("dead-open")],
    [custom("no-such-service", ADMIN)],
    [custom("rpc", ADMIN)],  # its Sidecar does not see the service
    [custom("unknown", ADMIN)],
    [custom("logs", ADMIN)],
    [custom("web", ADMIN), custom("rpc", {"to": [{"operation": {"paths": ["/admin/secret"]}}]})],
    [{**custom("rpc"), "dryRun": True}],
    [custom("rpc"), {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["DELETE"]}}]}]}],
]


class Setting(NamedTuple):
    proxy: Enforcing
    workloads: list[Workload]
    web: Asked
    rpc: Asked

    def status(self, number: int, path: str = "/", **headers: str) -> int:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.proxy.answer(self.workloads[number], Facts(host="own.example", path=path, headers=told))[0]


def _cluster(port: int, behind: int, *, http2: bool = False) -> dict[str, Any]:
    name = f"outbound|{port}||{HOST}"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": behind}}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options" if http2 else "http_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


@pytest.fixture(scope="module", params=PLANES)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    workloads = some_workloads(len(TABLES))
    tables = dict(zip(workloads, TABLES, strict=True))
    with asked_over_http() as (web_port, web), asked_over_grpc() as (rpc_port, rpc):
        clusters = [_cluster(8000, web_port), _cluster(9000, rpc_port, http2=True), _cluster(8001, 1)]
        directory = tmp_path_factory.mktemp(request.param)
        mesh = {"extensionProviders": PROVIDERS}
        with enforcing(request.param, tables, directory, mesh=mesh, more=SERVICE, clusters=clusters) as proxy:
            yield Setting(proxy, workloads, web, rpc)


def test_over_http_what_the_rules_are_for_is_asked_about(setting: Setting) -> None:
    setting.web.clear()
    assert setting.status(0, "/info") == 200
    assert setting.web == []
    assert setting.status(0, "/admin/x", x_user="bob") == 401
    assert setting.status(0, "/admin/x", x_user="alice", x_trace_id="7", x_private="no") == 200
    assert [each["path"] for each in setting.web] == ["/check/admin/x", "/check/admin/x"]
    told = setting.web[-1]["headers"]
    assert (told["x-user"], told["x-trace-id"], told["x-from"]) == ("alice", "7", "mesh")
    assert "x-private" not in told


def test_over_http_answers_carry_the_headers_that_are_named(setting: Setting) -> None:
    call = Facts(host="own.example", path="/admin", headers={"x-user": "alice"})
    status, headers, body = setting.proxy.answer(setting.workloads[0], call)
    assert status == 200 and headers["x-other"] == "unseen"
    seen = json.loads(body)["headers"]
    assert seen["x-checked"] == "by-http" and "x-other" not in seen
    status, headers, _ = setting.proxy.answer(setting.workloads[0], replace(call, headers={}))
    assert status == 401 and headers["x-checked"] == "by-http" and "x-other" not in headers


def test_over_grpc(setting: Setting) -> None:
    setting.rpc.clear()
    assert setting.status(1, "/info", x_user="bob") == 402
    assert setting.status(1, "/info", x_user="alice", x_any="yes") == 200
    assert setting.rpc[-1]["path"] == "/info" and setting.rpc[-1]["headers"]["x-any"] == "yes"


def test_connections_are_asked_about_over_grpc(setting: Setting) -> None:
    workload = setting.workloads[1]
    assert setting.proxy.ask(workload, Facts("cluster.local/ns/shop/sa/page", http=False)) is True
    assert setting.proxy.ask(workload, Facts("cluster.local/ns/shop/sa/other", http=False)) is False
    assert setting.rpc[-1]["principal"] == "spiffe://cluster.local/ns/shop/sa/other"


def test_a_provider_that_is_away_lets_nobody_pass_if_it_does_not_say_so(setting: Setting) -> None:
    assert setting.status(2) == 503
    assert setting.status(3) == 200


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_a_provider_that_cannot_be_asked_denies_what_it_would_be_asked_about(setting: Setting, number: int) -> None:
    assert setting.status(number, "/info") == 200
    assert setting.status(number, "/admin", x_user="alice") == 403


def test_each_of_several_providers_is_asked_about_its_own(setting: Setting) -> None:
    setting.web.clear()
    setting.rpc.clear()
    assert setting.status(8, "/admin/x", x_user="alice") == 200
    assert (len(setting.web), len(setting.rpc)) == (1, 0)
    assert setting.status(8, "/admin/secret", x_user="alice") == 200
    assert (len(setting.web), len(setting.rpc)) == (2, 1)


def test_a_dry_run_asks_nobody(setting: Setting) -> None:
    setting.rpc.clear()
    assert setting.status(9, "/admin") == 200
    assert setting.rpc == []


def test_what_is_allowed_is_still_denied_by_others(setting: Setting) -> None:
    call = Facts(host="own.example", headers={"x-user": "alice"})
    assert setting.proxy.answer(setting.workloads[10], call)[0] == 200
    assert setting.proxy.answer(setting.workloads[10], replace(call, method="DELETE"))[0] == 403
