"""`mizzen explain` on files: what is told names the resource and the rule that decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.cli.explaining import Journey, Leg
from controlplane.cli.main import command
from controlplane.proxy_configuration import configuration_of, matches
from tests.controlplane.pilot.mesh import mesh as pilot_of
from tests.controlplane.pilot.mesh import proxy

_GROUP = """\
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {selector: {app: NAME}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: NAME-v1, namespace: shop}
spec: {metadata: {labels: {app: NAME, version: v1}}, template: {serviceAccount: NAME, ports: {http: 9080}}}
---
"""
MESH = (
    _GROUP.replace("NAME", "page")
    + _GROUP.replace("NAME", "reviews")
    + """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: ada
    match: [{headers: {end-user: {exact: ada}}}]
    rewrite: {uri: /secret}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /gone}}]
    redirect: {uri: /here}
  - route: [{destination: {host: reviews}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
  - to: [{operation: {methods: [GET]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules:
  - from: [{source: {ipBlocks: [192.0.2.0/24]}}]
  - to: [{operation: {paths: [/secret*]}}]
"""
)


@pytest.fixture
def mesh(tmp_path: Path) -> str:
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    return str(path)


def _explain(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["explain", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (("GET", "/x"), 0, [
            "route 2 matches  [VirtualService shop/reviews]",
            "verdict: the request goes to cluster 'inbound|9080||'",
        ]),
        (("GET", "/x", "-H", "end-user: ada"), 3, [
            "route 0 'ada' matches  [VirtualService shop/reviews]",
            "the path becomes '/secretx'",
            "policy 'ns[shop]-policy[no-secrets]-rule[1]' fits",
            "[AuthorizationPolicy shop/no-secrets, rule 1]",
            "verdict: 403 'RBAC: access denied'",
        ]),
        (("POST", "/x"), 3, [
            "policy 'ns[shop]-policy[open]-rule[0]' does not fit: permission header :method exact 'GET' is not met: it is 'POST'",
            "[AuthorizationPolicy shop/open, rule 0]",
        ]),
        (("GET", "/gone"), 3, ["verdict: the route redirects: 301, location http://reviews.shop.svc.cluster.local:80/here"]),
    ],
)  # fmt: skip
def test_resource_and_rule_are_named(mesh: str, request_: tuple[str, ...], status: int, said: list[str]) -> None:
    method, path, *rest = request_
    found, output = _explain("-f", mesh, "--from", "shop/page", "--to", "reviews", *rest, method, path)
    assert found == status, output
    for one in said:
        assert one in output, output
    assert "shop/page-v1 asks reviews.shop.svc.cluster.local:80" in output


def test_as_json_for_programs(mesh: str) -> None:
    status, output = _explain("-f", mesh, "--from", "shop/page", "--to", "shop/reviews", "-o", "json", "GET", "/x")
    legs: list[dict[str, Any]] = json.loads(output)
    assert status == 0 and [leg["arrives"] for leg in legs] == [True, True]
    resources = {step["resource"] for leg in legs for step in leg["steps"]}
    assert {"VirtualService shop/reviews", "AuthorizationPolicy shop/open, rule 0"} <= resources


def test_somebody_without_a_sidecar(mesh: str) -> None:
    status, output = _explain("-f", mesh, "--to", "shop/reviews", "GET", "/x")
    assert status == 0 and "is asked by somebody in plain text" in output, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "shop/nobody", "--to", "reviews", "GET", "/"), "no sidecar of shop/nobody is known"),
        (("--from", "page", "--to", "reviews", "GET", "/"), "'page' is not NAMESPACE/SERVICE"),
        (("--from", "shop/page", "--to", "nothing", "GET", "/"), "sees no service nothing; it sees page.shop"),
        (
            ("--from", "shop/page", "--to", "reviews", "--port", "81", "GET", "/"),
            "reviews.shop.svc.cluster.local has 80",
        ),
        (("--from", "shop/page", "--to", "reviews", "GET", "x"), "must begin with /"),
        (("--to", "reviews", "GET", "/"), "write NAMESPACE/SERVICE"),
    ],
)
def test_what_cannot_be_explained_says_why(mesh: str, arguments: tuple[str, ...], message: str) -> None:
    status, output = _explain("-f", mesh, *arguments)
    assert status in (1, 2) and message in output, output


def test_files_that_are_wrong_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.replace("prefix", "prefiks").replace("exact: ada", "exakt: ada"))
    status, output = _explain("-f", str(path), "--from", "shop/page", "--to", "reviews", "GET", "/")
    assert status == 1 and "mesh.yaml:" in output and "exakt" in output, output


_ENTRY = """\
---
kind: WorkloadEntry
metadata: {name: NAME-1, namespace: shop, labels: {security.istio.io/tlsMode: istio}}
spec: {address: 10.0.0.NUMBER, labels: {app: NAME}, serviceAccount: NAME, ports: {http: 9080}}
"""
_ELSEWHERE = """\
---
kind: ServiceEntry
metadata: shop/db
spec:
  hosts: [db.example.com]
  addresses: [240.1.1.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: 192.0.2.9}]
"""


class _Captured:
    """A mesh whose workloads have all their connections captured."""

    def __init__(self) -> None:
        entries = "".join(
            _ENTRY.replace("NAME", name).replace("NUMBER", str(number))
            for number, name in enumerate(("page", "reviews"))
        )
        self.pilot = pilot_of(MESH + entries + _ELSEWHERE)
        self.proxies = [
            proxy(
                f"{name}-1", "shop", labels={"app": name}, address=f"10.0.0.{number}",
                INTERCEPTION_MODE="REDIRECT", SDS_AGENT="true", SERVICE_ACCOUNT=name,
            )
            for number, name in enumerate(("page", "reviews"))
        ]  # fmt: skip

    def named(self, namespace: str, name: str) -> list[dict[str, Any]]:
        return [configuration_of(self.pilot, one) for one in self.proxies if matches(one, namespace, name)]

    def at(self, address: str) -> list[dict[str, Any]]:
        return [configuration_of(self.pilot, one) for one in self.proxies if address in one.addresses]


def _journey(source: str | None, target: str, path: str = "/x") -> list[Leg]:
    return Journey(_Captured(), source, target, None, "GET", path, ()).legs()


def _said(leg: Leg) -> list[str]:
    return [step["text"] for step in leg.steps if step["outcome"] != "passed over"]


def test_what_is_captured_goes_by_its_original_destination() -> None:
    there, here = _journey("shop/page", "reviews")
    said = _said(there)
    assert said[0] == "listener 'virtualOutbound' on 0.0.0.0:15001: takes what is captured"
    assert said[1] == "listener '0.0.0.0_80' on 0.0.0.0:80: gets it from 'virtualOutbound' (use_original_dst)"
    assert "the route leads to cluster 'outbound|80||reviews.shop.svc.cluster.local'" in said
    assert _said(here)[0] == "listener 'virtualInbound' on 0.0.0.0:15006: takes what is captured"
    assert here.title.endswith("is asked by spiffe://cluster.local/ns/shop/sa/page")
    assert here.verdict == "verdict: the request goes to cluster 'inbound|9080||'"


def test_a_captured_service_that_refuses() -> None:
    *_, here = _journey("shop/page", "reviews", "/secret/1")
    assert not here.arrives and "403" in here.verdict, here.verdict


def test_captured_connections_by_their_address() -> None:
    there, _ = _journey("shop/page", "db.example.com", "/")
    assert "listener '240.1.1.1_5432' on 240.1.1.1:5432: gets it from 'virtualOutbound' (use_original_dst)" in _said(
        there
    )


def test_a_captured_service_is_asked_at_a_port_that_it_serves() -> None:
    (here,) = _journey(None, "shop/reviews")
    assert here.title == "shop/reviews-1 at 10.0.0.1:9080 is asked by somebody in plain text" and here.arrives, here
