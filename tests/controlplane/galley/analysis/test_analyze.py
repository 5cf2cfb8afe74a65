"""Analysis: for each of Istio's codes a mesh that earns it and one that does not."""

# ruff: noqa: E501
from __future__ import annotations

from typing import Any

import pytest

from controlplane.galley.analysis import messages
from controlplane.galley.analysis.analyze import SUPPRESS, analyze, schema_error, validation_messages
from controlplane.galley.analysis.messages import Level, MessageType
from controlplane.model.causes import Cause
from controlplane.model.parsing import parse, warnings
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import Resource, ResourceKey
from tests.controlplane.model.documents import document
from tests.controlplane.model.test_good_documents import GOOD

Document = tuple[str, str, str]

_PORT = "ports: [{name: http, port: 9080}]"
BASE: list[Document] = [
    ("Service", "reviews", f"{{selector: {{app: reviews}}, {_PORT}}}"),
    ("Service", "ratings", f"{{selector: {{app: ratings}}, {_PORT}}}"),
    ("WorkloadEntry", "reviews-1", "{address: 10.0.0.1, labels: {app: reviews, version: v1}}"),
    ("WorkloadEntry", "reviews-2", "{address: 10.0.0.2, labels: {app: reviews, version: v2}}"),
    ("WorkloadEntry", "ratings-1", "{address: 10.0.0.3, labels: {app: ratings}}"),
    ("WorkloadEntry", "edge-1", "{address: 10.0.0.4, labels: {istio: edge}}"),
]
"""Two services with workloads, and a gateway's workload: nothing to say of it."""

_CERTIFICATE = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"
SECRET: Document = ("Secret", "cert", f"{{data: {{tls.crt: {_CERTIFICATE}, tls.key: YQ==}}}}")
GATEWAY: Document = (
    "Gateway",
    "edge",
    "{selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}]}",
)
SUBSETS: Document = (
    "DestinationRule",
    "reviews",
    "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
)
PROVIDERS: Document = (
    "ConfigMap",
    "istio-system/istio",
    "{data: {mesh: '{extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.shop.svc.cluster.local, port: 1}}, {name: zip, zipkin: {service: z.y, port: 9}}]}'}}",
)


def _route(body: str, hosts: str = "[reviews]", more: str = "") -> str:
    return f"{{hosts: {hosts}, {more} http: [{body}]}}"


def _to(host: str = "reviews", more: str = "") -> str:
    return f"route: [{{destination: {{host: {host}{more}}}}}]"


def _tls_server(number: int, tls: str, host: str = "'*'") -> str:
    return f"{{selector: {{istio: edge}}, servers: [{{port: {{number: {number}, name: https, protocol: HTTPS}}, hosts: [{host}], tls: {tls}}}]}}"


def _filter(patch: str, more: str = "") -> str:
    return f"{{{more} configPatches: [{patch}]}}"


Found = set[tuple[str, str, str]]
CASES: list[tuple[str, list[Document], Found]] = [
    ("nothing", [], set()),
    # destinations
    ("routes that are right", [SUBSETS, ("VirtualService", "a", _route("{" + _to(more=", subset: v1, port: {number: 9080}") + "}"))], set()),
    ("full and short names", [("VirtualService", "a", _route("{" + _to("ratings.shop") + "}, {" + _to("ratings.shop.svc.cluster.local") + "}").replace("http: [{", "http: [{match: [{uri: {prefix: /a}}], "))], set()),
    ("an unknown host", [("VirtualService", "a", _route("{" + _to("rewievs") + "}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].route[0].destination.host")}),
    ("an unknown port", [("VirtualService", "a", _route("{" + _to(more=", port: {number: 1}") + "}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].route[0].destination.port.number")}),
    ("an unknown subset", [SUBSETS, ("VirtualService", "a", _route("{" + _to(more=", subset: v9") + "}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].route[0].destination.subset")}),
    ("an unknown mirror", [("VirtualService", "a", _route("{" + _to() + ", mirrors: [{destination: {host: x}}, {destination: {host: ratings}}]}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].mirrors[0].destination.host")}),
    ("an unknown host of tcp", [("VirtualService", "a", "{hosts: [reviews], tcp: [{route: [{destination: {host: y}}]}]}")], {("IST0101", "VirtualService/shop/a", "spec.tcp[0].route[0].destination.host")}),
    ("a host of another namespace that is not exported", [("ServiceEntry", "other/far", "{hosts: [far.example.com], exportTo: ['.'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}"), ("VirtualService", "a", _route("{" + _to("far.example.com") + "}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].route[0].destination.host")}),
    ("a host that a wildcard covers", [("ServiceEntry", "other/far", "{hosts: ['*.example.com'], ports: [{number: 80, name: http, protocol: HTTP}]}"), ("VirtualService", "a", _route("{" + _to("far.example.com") + "}"))], set()),
    ("a delegate", [("VirtualService", "a", _route("{delegate: {name: b}}")), ("VirtualService", "b", "{http: [{" + _to() + "}]}")], set()),
    ("an unknown delegate", [("VirtualService", "a", _route("{delegate: {name: b}}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].delegate")}),
    ("a delegate with hosts", [("VirtualService", "a", _route("{delegate: {name: b}}")), ("VirtualService", "b", _route("{" + _to() + "}", "[ratings]"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].delegate")}),
    ("a service with several ports", [("Service", "two", "{selector: {app: ratings}, ports: [{name: http, port: 1, targetPort: 1}, {name: grpc, port: 2, targetPort: 2}]}"), ("VirtualService", "a", _route("{" + _to("two") + "}"))], {("IST0112", "VirtualService/shop/a", "spec.http[0].route[0].destination")}),
    ("one of several ports", [("Service", "two", "{selector: {app: ratings}, ports: [{name: http, port: 1, targetPort: 1}, {name: grpc, port: 2, targetPort: 2}]}"), ("VirtualService", "a", _route("{" + _to("two", ", port: {number: 2}") + "}"))], set()),
    ("subsets that gateways do not see", [SUBSETS, GATEWAY, ("VirtualService", "mesh", _route("{" + _to(more=", subset: v1") + "}")), ("VirtualService", "edge", _route("{" + _to() + "}", "[a.example.com]", "gateways: [edge],"))], {("IST0140", "VirtualService/shop/edge", "spec.http[0].route[0].destination")}),
    ("subsets at gateways", [SUBSETS, GATEWAY, ("VirtualService", "mesh", _route("{" + _to(more=", subset: v1") + "}")), ("VirtualService", "edge", _route("{" + _to(more=", subset: v2") + "}", "[a.example.com]", "gateways: [edge],"))], set()),
    # VirtualServices among each other, and gateways
    ("one host twice", [("VirtualService", "a", _route("{" + _to() + "}")), ("VirtualService", "b", _route("{" + _to("ratings") + "}", "[reviews.shop.svc.cluster.local]"))], {("IST0109", "VirtualService/shop/a", "spec.hosts"), ("IST0109", "VirtualService/shop/b", "spec.hosts")}),
    ("one host for two namespaces", [("VirtualService", "a", _route("{" + _to() + "}", more="exportTo: [one],")), ("VirtualService", "b", _route("{" + _to("ratings") + "}", more="exportTo: [two],"))], set()),
    ("an unknown gateway", [("VirtualService", "a", _route("{" + _to() + "}", "[a.example.com]", "gateways: [edge, mesh],"))], {("IST0101", "VirtualService/shop/a", "spec.gateways[0]")}),
    ("an unknown gateway of a condition", [("VirtualService", "a", _route("{match: [{gateways: [other/edge, mesh]}], " + _to() + "}"))], {("IST0101", "VirtualService/shop/a", "spec.http[0].match[0].gateways[0]")}),
    ("a host that the gateway does not serve", [GATEWAY, ("VirtualService", "a", _route("{" + _to() + "}", "[a.example.org]", "gateways: [shop/edge],"))], {("IST0132", "VirtualService/shop/a", "spec.gateways[0]")}),
    ("a host that the gateway serves", [GATEWAY, ("VirtualService", "a", _route("{" + _to() + "}", "[a.example.com]", "gateways: [./edge],"))], set()),
    ("a host for another namespace alone", [("Gateway", "edge", "{selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [other/a.example.com]}]}"), ("VirtualService", "a", _route("{" + _to() + "}", "[a.example.com]", "gateways: [edge],"))], {("IST0132", "VirtualService/shop/a", "spec.gateways[0]")}),
    ("claims that nobody reads", [GATEWAY, ("VirtualService", "a", _route("{match: [{headers: {'@request.auth.claims.sub': {exact: a}}}], " + _to() + "}", "[a.example.com]", "gateways: [edge],"))], {("IST0149", "VirtualService/shop/a", "spec.http[0].match[0].headers[@request.auth.claims.sub]")}),
    ("claims that are read", [GATEWAY, ("RequestAuthentication", "jwt", "{selector: {matchLabels: {istio: edge}}, jwtRules: [{issuer: a, jwksUri: https://a.example/keys}]}"), ("VirtualService", "a", _route("{match: [{headers: {'@request.auth.claims.sub': {exact: a}}}], " + _to() + "}", "[a.example.com]", "gateways: [edge],"))], set()),
    # rules that are never used
    ("a rule behind one that takes all", [("VirtualService", "a", _route("{" + _to() + "}, {match: [{uri: {prefix: /a}}], " + _to() + "}"))], {("IST0130", "VirtualService/shop/a", "spec.http[1]")}),
    ("a rule behind the prefix /", [("VirtualService", "a", _route("{match: [{uri: {prefix: /}}], " + _to() + "}, {" + _to() + "}"))], {("IST0130", "VirtualService/shop/a", "spec.http[1]")}),
    ("the same condition again", [("VirtualService", "a", _route("{match: [{uri: {exact: /a}, name: x}], " + _to() + "}, {match: [{uri: {exact: /a}}, {uri: {exact: /b}}], " + _to() + "}"))], {("IST0131", "VirtualService/shop/a", "spec.http[1].match[0]")}),
    ("a longer prefix behind a shorter", [("VirtualService", "a", _route("{match: [{uri: {prefix: /a}}], " + _to() + "}, {match: [{uri: {prefix: /a/b}, headers: {x: {exact: y}}}], " + _to() + "}"))], {("IST0131", "VirtualService/shop/a", "spec.http[1].match[0]"), ("IST0130", "VirtualService/shop/a", "spec.http[1]")}),
    ("conditions that differ", [("VirtualService", "a", _route("{match: [{uri: {prefix: /a/b}}], " + _to() + "}, {match: [{uri: {prefix: /a}, headers: {x: {exact: y}}}], " + _to() + "}, {match: [{uri: {prefix: /a}}], " + _to() + "}, {match: [{withoutHeaders: {x: {}}}, {queryParams: {q: {exact: a}}}, {method: {exact: GET}}], " + _to() + "}, {" + _to() + "}"))], set()),
    ("tcp rules", [("VirtualService", "a", "{hosts: [reviews], tcp: [{match: [{port: 1}], " + _to() + "}, {match: [{port: 1}], " + _to() + "}]}")], {("IST0130", "VirtualService/shop/a", "spec.tcp[1]"), ("IST0131", "VirtualService/shop/a", "spec.tcp[1].match[0]")}),
    # DestinationRules
    ("a rule for no service", [("DestinationRule", "a", "{host: rewievs}")], {("IST0174", "DestinationRule/shop/a", "spec.host")}),
    ("a rule for all", [("DestinationRule", "a", "{host: '*.shop.svc.cluster.local'}")], set()),
    ("a subset of no workload", [("DestinationRule", "a", "{host: reviews, subsets: [{name: v9, labels: {version: v9}}, {name: v1, labels: {version: v1}}]}")], {("IST0173", "DestinationRule/shop/a", "spec.subsets[0].labels")}),
    ("a subset that a group will have", [("WorkloadGroup", "g", "{metadata: {labels: {app: reviews, version: v9}}, template: {}}"), ("DestinationRule", "a", "{host: reviews, subsets: [{name: v9, labels: {version: v9}}]}")], set()),
    ("servers that are not verified", [("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 1}, tls: {mode: SIMPLE}}]}}")], {("IST0128", "DestinationRule/shop/a", "spec.trafficPolicy.tls"), ("IST0129", "DestinationRule/shop/a", "spec.trafficPolicy.portLevelSettings[0].tls")}),
    ("a client's secret that is not there", [("DestinationRule", "a", "{host: ratings, subsets: [{name: x, trafficPolicy: {tls: {mode: SIMPLE, credentialName: y}}}]}")], {("IST0101", "DestinationRule/shop/a", "spec.subsets[0].trafficPolicy.tls.credentialName")}),
    ("servers that are verified", [("Secret", "y", "{}"), ("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /a}}, subsets: [{name: x, trafficPolicy: {tls: {mode: MUTUAL, credentialName: y}}}]}")], set()),
    ("plain text to those who want mTLS", [("PeerAuthentication", "a", "{mtls: {mode: STRICT}}"), ("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: DISABLE}}}")], {("IST0113", "DestinationRule/shop/a", "spec.trafficPolicy.tls.mode")}),
    ("mTLS to those who refuse it", [("PeerAuthentication", "istio-system/a", "{mtls: {mode: STRICT}}"), ("PeerAuthentication", "b", "{selector: {matchLabels: {app: ratings}}, mtls: {mode: DISABLE}}"), ("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}")], {("IST0113", "DestinationRule/shop/a", "spec.trafficPolicy.tls.mode")}),
    ("one port that is another", [("PeerAuthentication", "a", "{selector: {matchLabels: {app: ratings}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}}}"), ("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: DISABLE}}}"), ("DestinationRule", "b", "{host: ratings, trafficPolicy: {portLevelSettings: [{port: {number: 9080}, tls: {mode: ISTIO_MUTUAL}}]}}")], {("IST0113", "DestinationRule/shop/b", "spec.trafficPolicy.portLevelSettings[0].tls.mode")}),
    ("mTLS on both sides", [("PeerAuthentication", "istio-system/a", "{mtls: {mode: STRICT}}"), ("DestinationRule", "a", "{host: ratings, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}")], set()),
    # Gateways
    ("a gateway of no workload", [("Gateway", "g", GATEWAY[2].replace("istio: edge", "istio: egde"))], {("IST0101", "Gateway/shop/g", "spec.selector")}),
    ("a secret that is not there", [("Gateway", "g", _tls_server(443, "{mode: SIMPLE, credentialName: cert}"))], {("IST0101", "Gateway/shop/g", "spec.servers[0].tls.credentialName")}),
    ("a secret without a certificate", [("Secret", "cert", "{data: {a: YQ==}}"), ("Gateway", "g", _tls_server(443, "{mode: SIMPLE, credentialName: cert}"))], {("IST0161", "Gateway/shop/g", "spec.servers[0].tls.credentialName")}),
    ("a secret with something else", [("Secret", "cert", "{stringData: {cert: a, key: b}}"), ("Gateway", "g", _tls_server(443, "{mode: SIMPLE, credentialName: cert}"))], {("IST0161", "Gateway/shop/g", "spec.servers[0].tls.credentialName")}),
    ("a secret with a certificate", [SECRET, ("Gateway", "g", _tls_server(443, "{mode: SIMPLE, credentialName: cert}"))], set()),
    ("two gateways for one host", [GATEWAY, (GATEWAY[0], "other", GATEWAY[2])], {("IST0145", "Gateway/shop/edge", "spec.servers[0]"), ("IST0145", "Gateway/shop/other", "spec.servers[0]")}),
    ("two gateways for two hosts", [GATEWAY, (GATEWAY[0], "other", GATEWAY[2].replace("example.com", "example.org"))], set()),
    ("one certificate in two gateways", [SECRET, ("Gateway", "g", _tls_server(443, "{mode: SIMPLE, credentialName: cert}", "a")), ("Gateway", "h", _tls_server(443, "{mode: SIMPLE, credentialName: cert}", "b"))], {("IST0138", "Gateway/shop/g", "spec.servers[0].tls.credentialName"), ("IST0138", "Gateway/shop/h", "spec.servers[0].tls.credentialName")}),
    ("a port that the gateway's service lacks", [("Service", "edge", "{selector: {istio: edge}, ports: [{name: http, port: 8080, targetPort: 8080}]}"), GATEWAY], {("IST0162", "Gateway/shop/edge", "spec.servers[0].port.number")}),
    ("a port that the gateway's service has", [("Service", "edge", "{selector: {istio: edge}, ports: [{name: http, port: 8080, targetPort: 80}]}"), GATEWAY], set()),
    # Sidecars and Telemetry
    ("two sidecars of one workload", [("Sidecar", "a", "{workloadSelector: {labels: {app: reviews}}, egress: [{hosts: [./*]}]}"), ("Sidecar", "b", "{workloadSelector: {labels: {version: v1}}, egress: [{hosts: [./*]}]}")], {("IST0110", "Sidecar/shop/a", ""), ("IST0110", "Sidecar/shop/b", "")}),
    ("two sidecars of a namespace", [("Sidecar", "a", "{egress: [{hosts: [./*]}]}"), ("Sidecar", "b", "{egress: [{hosts: [./*]}]}")], {("IST0111", "Sidecar/shop/a", ""), ("IST0111", "Sidecar/shop/b", "")}),
    ("sidecars that do not meet", [("Sidecar", "a", "{egress: [{hosts: [./*]}]}"), ("Sidecar", "b", "{workloadSelector: {labels: {version: v1}}, egress: [{hosts: [./*]}]}"), ("Sidecar", "c", "{workloadSelector: {labels: {version: v2}}, egress: [{hosts: [./*]}]}")], set()),
    ("two telemetries of one workload", [("Telemetry", "a", "{selector: {matchLabels: {app: reviews}}}"), ("Telemetry", "b", "{selector: {matchLabels: {version: v1}}}")], {("IST0159", "Telemetry/shop/a", ""), ("IST0159", "Telemetry/shop/b", "")}),
    ("two telemetries of a namespace", [("Telemetry", "a", "{}"), ("Telemetry", "b", "{}")], {("IST0160", "Telemetry/shop/a", ""), ("IST0160", "Telemetry/shop/b", "")}),
    ("providers that are not there", [PROVIDERS, ("Telemetry", "a", "{tracing: [{providers: [{name: zap}]}], accessLogging: [{}]}")], {("IST0101", "Telemetry/shop/a", "spec.tracing[0].providers[0].name"), ("IST0157", "Telemetry/shop/a", "spec.accessLogging[0]")}),
    ("providers that are there", [PROVIDERS, ("Telemetry", "a", "{tracing: [{providers: [{name: zip}]}], metrics: [{providers: [{name: prometheus}]}], accessLogging: [{providers: [{name: envoy}]}]}")], set()),
    # services
    ("a port without a protocol", [("Service", "s", "{selector: {app: ratings}, ports: [{name: web, port: 1, targetPort: 1}]}")], {("IST0118", "Service/shop/s", "spec.ports[0].name")}),
    ("ports with protocols", [("Service", "s", "{selector: {app: ratings}, ports: [{name: web, port: 1, targetPort: 1, appProtocol: http2}, {name: grpc-x, port: 2, targetPort: 2}, {name: dns, port: 53, protocol: UDP}]}")], set()),
    ("an external name that takes all", [("Service", "s", "{type: ExternalName, externalName: a.b, ports: [{name: tcp, port: 1}]}")], {("IST0150", "Service/shop/s", "spec.ports[0].name")}),
    ("an external name", [("Service", "s", "{type: ExternalName, externalName: a.b, ports: [{name: http, port: 1}]}")], set()),
    ("a service without workloads", [("Service", "s", f"{{selector: {{app: none}}, {_PORT}}}"), ("ServiceEntry", "e", "{hosts: [e.x], resolution: STATIC, ports: [{number: 1, name: http, protocol: HTTP}], workloadSelector: {labels: {app: nowhere}}}")], {("IST0127", "Service/shop/s", "spec.selector"), ("IST0127", "ServiceEntry/shop/e", "spec.workloadSelector")}),
    ("two protocols on one port", [("Service", "s", "{selector: {app: ratings}, ports: [{name: tcp, port: 9080}]}")], {("IST0116", "Service/shop/ratings", "spec.ports[0]")}),
    ("two ports for one target", [("Service", "s", "{selector: {app: ratings}, ports: [{name: http, port: 80, targetPort: 9080}]}")], {("IST0137", "Service/shop/ratings", "spec.ports[0]")}),
    ("two services that agree", [("Service", "s", "{selector: {app: ratings}, ports: [{name: http-x, port: 9080}]}")], set()),
    ("tcp without addresses", [("ServiceEntry", "e", "{hosts: [e.x], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}, {number: 2, name: b}, {number: 3, name: c, protocol: TLS}]}")], {("IST0134", "ServiceEntry/shop/e", "spec.ports[0].protocol"), ("IST0134", "ServiceEntry/shop/e", "spec.ports[1].protocol")}),
    ("tcp with addresses", [("ServiceEntry", "e", "{hosts: [e.x], addresses: [10.1.1.1], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]}")], set()),
    # policies
    ("policies of no workload", [("AuthorizationPolicy", "a", "{selector: {matchLabels: {app: x}}}"), ("EnvoyFilter", "e", _filter("{applyTo: CLUSTER, patch: {operation: MERGE, value: {}}}", "workloadSelector: {labels: {app: y}},"))], {("IST0127", "AuthorizationPolicy/shop/a", "spec.selector.matchLabels"), ("IST0127", "EnvoyFilter/shop/e", "spec.workloadSelector.labels")}),
    ("a policy of the mesh's workloads", [("AuthorizationPolicy", "istio-system/a", "{selector: {matchLabels: {app: reviews}}}")], set()),
    ("a provider that is not there", [PROVIDERS, ("AuthorizationPolicy", "a", "{action: CUSTOM, provider: {name: apo}, rules: [{}]}")], {("IST0101", "AuthorizationPolicy/shop/a", "spec.provider.name")}),
    ("a provider that is there", [PROVIDERS, ("AuthorizationPolicy", "a", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}")], set()),
    ("a namespace that is not there", [("Namespace", "shop", "{}"), ("AuthorizationPolicy", "a", "{rules: [{from: [{source: {namespaces: [shop, shpo, 'sh*']}}]}]}")], {("IST0101", "AuthorizationPolicy/shop/a", "spec.rules[0].from[0].source.namespaces[1]")}),
    ("tokens on a port of tcp", [("Service", "s", "{selector: {app: ratings}, ports: [{name: tcp-x, port: 7}]}"), ("RequestAuthentication", "r", "{selector: {matchLabels: {app: ratings}}, jwtRules: [{issuer: a, jwksUri: https://a.example/keys}]}")], {("IST0119", "RequestAuthentication/shop/r", "")}),
    ("tokens on a port of http", [("RequestAuthentication", "r", "{selector: {matchLabels: {app: ratings}}, jwtRules: [{issuer: a, jwksUri: https://a.example/keys}]}")], set()),
    # EnvoyFilters
    ("a patch that depends on others", [("EnvoyFilter", "e", _filter("{applyTo: HTTP_FILTER, patch: {operation: INSERT_BEFORE, value: {name: x}}}"))], {("IST0151", "EnvoyFilter/shop/e", "spec.configPatches[0].patch.operation")}),
    ("a patch of a version", [("EnvoyFilter", "e", _filter("{applyTo: HTTP_FILTER, match: {proxy: {proxyVersion: '^1'}}, patch: {operation: MERGE, value: {name: x}}}"))], {("IST0155", "EnvoyFilter/shop/e", "spec.configPatches[0].patch.operation")}),
    ("a patch that replaces what cannot be", [("EnvoyFilter", "e", _filter("{applyTo: LISTENER_FILTER, patch: {operation: REPLACE, value: {name: x}}}", "priority: 1,"))], {("IST0152", "EnvoyFilter/shop/e", "spec.configPatches[0].patch.operation")}),
    ("patches of routes without effect", [("EnvoyFilter", "e", _filter("{applyTo: HTTP_ROUTE, patch: {operation: ADD, value: {name: x}}}, {applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}}"))], {("IST0153", "EnvoyFilter/shop/e", "spec.configPatches[0].patch.operation"), ("IST0154", "EnvoyFilter/shop/e", "spec.configPatches[1].patch.operation")}),
    ("patches that stand alone", [("EnvoyFilter", "e", _filter("{applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {name: x}}}, {applyTo: CLUSTER, patch: {operation: MERGE, value: {}}}")), ("EnvoyFilter", "f", _filter("{applyTo: HTTP_FILTER, patch: {operation: INSERT_AFTER, value: {name: x}}}", "priority: 7,"))], set()),
    # deprecated fields, settings without effect
    ("deprecated fields", [("VirtualService", "a", _route("{" + _to() + ", mirror: {host: ratings}, mirrorPercent: 5, fault: {delay: {fixedDelay: 1s, percent: 5}}, corsPolicy: {allowOrigin: [a]}}")), ("DestinationRule", "d", "{host: ratings, trafficPolicy: {loadBalancer: {simple: LEAST_CONN, warmupDurationSecs: 1s}, outlierDetection: {consecutiveErrors: 1}, portLevelSettings: [{port: {number: 1}, loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 5}}}]}}")], {("IST0002", "VirtualService/shop/a", "spec.http[0].mirrorPercent"), ("IST0002", "VirtualService/shop/a", "spec.http[0].fault.delay.percent"), ("IST0002", "VirtualService/shop/a", "spec.http[0].corsPolicy.allowOrigin"), ("IST0002", "DestinationRule/shop/d", "spec.trafficPolicy.loadBalancer.simple"), ("IST0002", "DestinationRule/shop/d", "spec.trafficPolicy.loadBalancer.warmupDurationSecs"), ("IST0002", "DestinationRule/shop/d", "spec.trafficPolicy.outlierDetection.consecutiveErrors"), ("IST0002", "DestinationRule/shop/d", "spec.trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash.minimumRingSize")}),
    ("settings without effect", [SECRET, ("Gateway", "g", _tls_server(443, "{mode: PASSTHROUGH, credentialName: cert, httpsRedirect: true}")), ("ServiceEntry", "e", "{hosts: ['*-a.x'], ports: [{number: 1, name: http, protocol: HTTP}], workloadSelector: {labels: {app: ratings}}}"), ("Telemetry", "t", "{tracing: [{}, {}]}"), ("AuthorizationPolicy", "p", "{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/a], ports: ['80']}}]}]}")], {("IST0133", "Gateway/shop/g", "spec.servers[0].tls"), ("IST0133", "Gateway/shop/g", "spec.servers[0].tls.httpsRedirect"), ("IST0133", "ServiceEntry/shop/e", "spec.workloadSelector"), ("IST0133", "ServiceEntry/shop/e", "spec.hosts[0]"), ("IST0133", "Telemetry/shop/t", "spec.tracing"), ("IST0133", "AuthorizationPolicy/shop/p", "spec.rules[0].to")}),
    # Kubernetes
    ("a pod without a sidecar", [("Namespace", "shop istio-injection=enabled", "{}"), ("Pod", "p", "{containers: [{name: app}]}")], {("IST0103", "Pod/shop/p", "")}),
    ("a pod with a sidecar", [("Namespace", "shop istio-injection=enabled", "{}"), ("Pod", "p", "{containers: [{name: app}, {name: istio-proxy}]}")], set()),
    ("a namespace that says nothing", [("Namespace", "shop", "{}"), ("Pod", "p", "{containers: [{name: app}]}")], {("IST0102", "Namespace/shop", "metadata.labels")}),
    ("a namespace that says both", [("Namespace", "shop istio-injection=enabled istio.io/rev=a", "{}")], {("IST0123", "Namespace/shop", "metadata.labels")}),
]  # fmt: skip


def _resources(documents: list[Document]) -> dict[ResourceKey, Resource]:
    found = {}
    for kind, where, body in documents:
        place, *labels = where.split(" ")
        namespace, _, name = place.rpartition("/")
        made: dict[str, Any] = document(kind, body, name, namespace or "shop")
        if labels:
            made["metadata"]["labels"] = dict(label.split("=") for label in labels)
        resource = parse(made)
        found[resource.key] = resource
    return found


@pytest.mark.parametrize(("documents", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_said_of_a_mesh(documents: list[Document], expected: Found) -> None:
    resources = _resources([*BASE, *documents])
    unheeded = {(key, cause.path, cause.message) for key, resource in resources.items() for cause in warnings(resource)}
    found = [each for each in analyze(resources) if (each.key, each.path, each.text) not in unheeded]
    assert {(message.type.code, str(message.key), message.path) for message in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("kind", "annotation", "value", "code"),
    [
        ("VirtualService", "sidecar.istio.io/inject", "true", "IST0107"),
        ("WorkloadEntry", "sidecar.istio.io/injekt", "true", "IST0108"),
        ("WorkloadEntry", "sidecar.istio.io/rewriteAppHTTPProbers", "yes", "IST0125"),
        ("WorkloadEntry", "traffic.sidecar.istio.io/excludeInboundPorts", "80,http", "IST0125"),
        ("WorkloadEntry", "sidecar.istio.io/statsInclusionPrefixes", "a", "IST0135"),
        ("WorkloadEntry", "traffic.sidecar.istio.io/excludeInboundPorts", "80,81", ""),
        ("VirtualService", "example.com/anything", "x", ""),
    ],
)
def test_what_is_said_of_annotations(kind: str, annotation: str, value: str, code: str) -> None:
    body = "{address: 10.0.0.1}" if kind == "WorkloadEntry" else _route("{" + _to() + "}")
    made = document(kind, body)
    made["metadata"]["annotations"] = {annotation: value}
    resource = parse(made)
    found = analyze(_resources(BASE) | {resource.key: resource})
    assert {each.type.code for each in found if each.path == f"metadata.annotations[{annotation}]"} >= (
        {code} if code else set()
    )
    assert code or not found


def test_every_code_is_in_the_tables() -> None:
    known = {each.code for each in vars(messages).values() if isinstance(each, MessageType)}
    shown = {code for _, _, expected in CASES for code, _, _ in expected}
    assert known - shown == {"IST0106", "IST0107", "IST0108", "IST0125", "IST0135"}  # those have tests of their own


def test_the_domain_of_services_can_be_another() -> None:
    resources = _resources([*BASE, ("VirtualService", "a", _route("{" + _to("ratings.shop.svc.mesh.test") + "}"))])
    assert [message.type.code for message in analyze(resources)] == ["IST0101"]
    assert analyze(resources, domain="mesh.test") == []


def test_connected_proxies_are_workloads() -> None:
    gateway = ("Gateway", "g", GATEWAY[2].replace("istio: edge", "istio: far"))
    proxy = Proxy(
        "router~10.0.0.9~far-1.shop~shop.svc.cluster.local",
        ProxyType.ROUTER,
        "shop",
        "far-1",
        "svc",
        labels={"istio": "far"},
    )
    resources = _resources([*BASE, gateway])
    assert [message.type.code for message in analyze(resources)] == ["IST0101"]
    assert analyze(resources, [proxy]) == []


def test_what_nothing_acts_upon_is_told() -> None:
    found = analyze(_resources([*BASE, ("Telemetry", "a", "{tracing: [{}]}")]))
    assert [(each.type.code, str(each.key), each.path) for each in found] == [
        ("IST0133", "Telemetry/shop/a", "spec.tracing")
    ]


def test_without_workloads_selectors_are_not_judged() -> None:
    resources = _resources(
        [
            BASE[0],
            GATEWAY,
            (
                "EnvoyFilter",
                "a",
                _filter(
                    "{applyTo: CLUSTER, patch: {operation: MERGE, value: {}}}", "workloadSelector: {labels: {app: y}},"
                ),
            ),
        ]
    )
    assert analyze(resources) == []


def test_a_resource_can_ask_not_to_be_told() -> None:
    made = document("DestinationRule", "{host: none}")
    made["metadata"]["annotations"] = {SUPPRESS: "IST0001, IST0174"}
    resource = parse(made)
    assert analyze({resource.key: resource}) == []


def test_the_worst_comes_first_and_statuses_have_istios_form() -> None:
    found = analyze(
        _resources(
            [
                *BASE,
                ("DestinationRule", "d", "{host: none}"),
                ("VirtualService", "a", _route("{" + _to("x") + "}")),
                ("Service", "s", "{selector: {app: ratings}, ports: [{port: 1, targetPort: 1}]}"),
            ]
        )
    )
    assert [message.type.level for message in found] == [Level.ERROR, Level.WARNING, Level.INFO]
    assert str(found[1]).startswith("Warning [IST0174] (DestinationRule shop/d) spec.host: ")
    statuses = validation_messages(found)
    assert set(statuses) == {message.key for message in found}
    (entry,) = statuses[ResourceKey("DestinationRule", "shop", "d")]
    assert entry["type"] == {"name": "UnknownDestinationRuleHost", "code": "IST0174"} and entry["level"] == "WARNING"
    assert entry["documentationUrl"].endswith("/ist0174/") and "none" in entry["message"]


def test_a_fault_of_one_resource_is_a_message_too() -> None:
    message = schema_error(ResourceKey("Sidecar", "shop", "a"), Cause("spec.egress[0].hosts", "is required"))
    assert str(message) == "Error [IST0106] (Sidecar shop/a) spec.egress[0].hosts: is required"


def test_whatever_is_right_by_itself_can_be_analysed() -> None:
    made = [(kind, f"n{index}", body) for index, (kind, body) in enumerate(GOOD)]
    known = {each.code for each in vars(messages).values() if isinstance(each, MessageType)}
    for documents in (made, [*BASE, *made], made[::2], made[1::3]):
        assert {message.type.code for message in analyze(_resources(documents))} <= known
