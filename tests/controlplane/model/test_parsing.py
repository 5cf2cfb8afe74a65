"""Documents and what is said of them: paths, reasons, messages."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from controlplane.model.causes import Invalid, Reason
from controlplane.model.parsing import parse
from controlplane.model.resource import ResourceKey


def _document(text: str) -> Any:
    return yaml.safe_load(text)


def _refused(text: str) -> dict[str, tuple[Reason, str]]:
    with pytest.raises(Invalid) as caught:
        parse(_document(text))
    return {cause.path: (cause.reason, cause.message) for cause in caught.value.causes}


def test_a_document_becomes_a_resource_with_names_as_in_python() -> None:
    resource = parse(
        _document("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop, creationTimestamp: "2024-05-01T10:00:00Z", labels: {app: reviews}}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    timeout: 1m1.5s
    mirror: null
    route: [{destination: {host: reviews, subset: v2, port: {number: 9080}}, weight: 90}]
status: {observedGeneration: 1}
""")
    )
    assert resource.key == ResourceKey("VirtualService", "shop", "reviews")
    assert resource.metadata.created == 1714557600 and resource.metadata.labels == {"app": "reviews"}
    route = resource.spec.http[0]
    assert route.timeout == 61.5 and route.match[0].headers["end-user"].exact == "jason"
    assert route.route[0].destination.port.number == 9080 and route.mirror is None


def test_everything_that_is_wrong_is_told_at_once_by_its_path() -> None:
    refused = _refused("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: Reviews, labels: {a: 1}}
spec:
  hosts: [reviews, 7]
  exportTo: all
  http:
  - match: [{headers: {end-user: {regex: "(?=a)"}}}]
    fault: {delay: {fixedDelay: 2 s, percentage: {value: 101}}}
    route: [{destination: {host: reviews, port: {number: 90800}}, wieght: 90}, {destination: {}, weight: "10"}]
    corsPolicy: {unmatchedPreflights: NEVER}
    cors_policy: {}
""")
    assert {path: reason for path, (reason, _) in refused.items()} == {
        "metadata.name": Reason.INVALID,
        "metadata.labels[a]": Reason.INVALID,
        "spec.hosts[1]": Reason.INVALID,
        "spec.exportTo": Reason.INVALID,
        "spec.http[0].match[0].headers[end-user].regex": Reason.INVALID,
        "spec.http[0].fault.delay.fixedDelay": Reason.INVALID,
        "spec.http[0].fault.delay.percentage.value": Reason.INVALID,
        "spec.http[0].route[0].destination.port.number": Reason.INVALID,
        "spec.http[0].route[0].wieght": Reason.INVALID,
        "spec.http[0].route[1].destination.host": Reason.REQUIRED,
        "spec.http[0].route[1].weight": Reason.INVALID,
        "spec.http[0].corsPolicy.unmatchedPreflights": Reason.NOT_SUPPORTED,
        "spec.http[0].cors_policy": Reason.INVALID,
    }
    assert refused["spec.http[0].route[0].wieght"][1].endswith("did you mean weight?")
    assert refused["spec.http[0].cors_policy"][1].endswith("did you mean corsPolicy?")


def test_fields_that_are_not_known_do_not_hide_what_else_is_wrong() -> None:
    refused = _refused("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: ["a*b"]
  htp: []
  http: [{route: [{destination: {host: reviews, subst: v1}, weight: -1}]}]
""")
    assert set(refused) == {
        "spec.htp",
        "spec.hosts[0]",
        "spec.http[0].route[0].destination.subst",
        "spec.http[0].route[0].weight",
    }


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("[]", "", Reason.INVALID),
        ("{apiVersion: v1}", "kind", Reason.REQUIRED),
        ("{kind: VirtualServices}", "kind", Reason.NOT_SUPPORTED),
        ("{kind: VirtualService}", "apiVersion", Reason.REQUIRED),
        ("{kind: VirtualService, apiVersion: v1}", "apiVersion", Reason.NOT_SUPPORTED),
        ("{kind: Service, apiVersion: v1, spec: {ports: [{port: 80}]}}", "metadata.name", Reason.REQUIRED),
        ("{kind: DestinationRule, apiVersion: networking.istio.io/v1, metadata: {name: a}}", "spec", Reason.REQUIRED),
        ("{kind: Namespace, apiVersion: v1, metadata: {name: a, namespace: b}}", "metadata.namespace", Reason.INVALID),
        ("{kind: Secret, apiVersion: v1, metadata: {name: a}, spec: {}}", "spec", Reason.INVALID),
        ("{kind: Sidecar, apiVersion: networking.istio.io/v1, metadata: {name: a}, sepc: {}}", "sepc", Reason.INVALID),
        ("{kind: Sidecar, apiVersion: networking.istio.io/v1, metadata: {name: a, lable: {}}}", "metadata.lable", Reason.INVALID),
    ],
)  # fmt: skip
def test_what_is_around_the_spec(text: str, path: str, reason: Reason) -> None:
    refused = _refused(text)
    assert path in refused and refused[path][0] == reason
