"""Documents of every kind with something wrong in them: the fields at fault, and Kubernetes' reasons."""

# ruff: noqa: E501
from __future__ import annotations

import pytest

from controlplane.model.causes import Invalid, Reason
from controlplane.model.kinds import KINDS
from controlplane.model.parsing import parse
from tests.controlplane.model.documents import document

I, R, N, D = (reason.value for reason in (Reason.INVALID, Reason.REQUIRED, Reason.NOT_SUPPORTED, Reason.DUPLICATE))  # noqa: E741

_ROUTE = "route: [{destination: {host: a}}]"
_PORT = "ports: [{number: 80, name: http, protocol: HTTP}]"


def _http(route: str) -> str:
    return f"{{hosts: [a], http: [{route}]}}"


def _policy(policy: str) -> str:
    return f"{{host: a, trafficPolicy: {policy}}}"


def _server(server: str) -> str:
    return f"{{servers: [{server}]}}"


def _patch(patch: str) -> str:
    return f"{{configPatches: [{patch}]}}"


BAD = [
    # VirtualService: hosts, gateways, what it is as a whole
    ("VirtualService", "{hosts: [a]}", {"spec": R}),
    ("VirtualService", f"{{hosts: ['*'], http: [{{{_ROUTE}}}]}}", {"spec.hosts[0]": I}),
    ("VirtualService", f"{{hosts: ['*'], gateways: [edge, mesh], http: [{{{_ROUTE}}}]}}", {"spec.hosts[0]": I}),
    ("VirtualService", f"{{hosts: ['a.*.com', 'a b', a.b.7, -x], http: [{{{_ROUTE}}}]}}", {f"spec.hosts[{index}]": I for index in range(4)}),
    ("VirtualService", f"{{hosts: ['*.com', a.com], gateways: [g], http: [{{{_ROUTE}}}]}}", {"spec.hosts[1]": D}),
    ("VirtualService", f"{{hosts: [a, a], http: [{{{_ROUTE}}}]}}", {"spec.hosts[1]": D}),
    ("VirtualService", f"{{hosts: [a], gateways: [a/b/c, 'A_/x', g, g], http: [{{{_ROUTE}}}]}}", {"spec.gateways[0]": I, "spec.gateways[1]": I, "spec.gateways[3]": D}),
    ("VirtualService", f"{{hosts: [a], exportTo: ['*', b], http: [{{{_ROUTE}}}]}}", {"spec.exportTo[0]": I}),
    ("VirtualService", f"{{hosts: [a], exportTo: ['~', B, c, c], http: [{{{_ROUTE}}}]}}", {"spec.exportTo[0]": I, "spec.exportTo[1]": I, "spec.exportTo[3]": D}),
    ("VirtualService", f"{{hosts: [a], http: [{{name: x, {_ROUTE}}}, {{name: x, {_ROUTE}}}]}}", {"spec.http[1].name": D}),
    # delegates
    ("VirtualService", f"{{gateways: [g], tcp: [{{{_ROUTE}}}]}}", {"spec.gateways": I, "spec.tcp": I}),
    ("VirtualService", "{http: [{delegate: {name: b}}]}", {"spec.http[0].delegate": I}),
    ("VirtualService", f"{{http: [{{match: [{{gateways: [g], uri: {{regex: a}}}}], {_ROUTE}}}]}}", {"spec.http[0].match[0].gateways": I, "spec.http[0].match[0].uri.regex": I}),
    ("VirtualService", _http("{match: [{headers: {x: {regex: a}}}], delegate: {name: b}}"), {"spec.http[0].match[0].headers[x].regex": I}),
    ("VirtualService", _http(f"{{delegate: {{name: ''}}, {_ROUTE}}}"), {"spec.http[0].route": I, "spec.http[0].delegate.name": R}),
    # http routes
    ("VirtualService", _http("{}"), {"spec.http[0]": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, redirect: {{uri: /a}}}}"), {"spec.http[0].redirect": I}),
    ("VirtualService", _http("{redirect: {uri: /a}, directResponse: {status: 200}}"), {"spec.http[0].directResponse": I}),
    ("VirtualService", _http("{redirect: {uri: /a}, fault: {abort: {httpStatus: 500}}, rewrite: {uri: /}}"), {"spec.http[0].fault": I, "spec.http[0].rewrite": I}),
    ("VirtualService", _http("{route: [{destination: {host: a}, weight: -1}, {destination: {host: b}, weight: 101}]}"), {"spec.http[0].route[0].weight": I}),
    ("VirtualService", _http("{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}"), {"spec.http[0].route": I}),
    ("VirtualService", _http("{route: [{destination: {host: a, port: {number: 0}}}]}"), {"spec.http[0].route[0].destination.port.number": I}),
    ("VirtualService", _http("{route: [{destination: {host: a, port: {}}}]}"), {"spec.http[0].route[0].destination.port.number": R}),
    ("VirtualService", _http("{route: [{destination: {host: '*', subset: V_1}}, {}]}"), {"spec.http[0].route[1].destination": R}),
    ("VirtualService", _http("{route: [{destination: {host: '*', subset: V_1}}]}"), {"spec.http[0].route[0].destination.host": I, "spec.http[0].route[0].destination.subset": I}),
    ("VirtualService", _http("{redirect: {redirectCode: 301}}"), {"spec.http[0].redirect": R}),
    ("VirtualService", _http("{redirect: {uri: /, redirectCode: 200, scheme: ftp}}"), {"spec.http[0].redirect.redirectCode": N, "spec.http[0].redirect.scheme": N}),
    ("VirtualService", _http("{redirect: {port: 80, derivePort: FROM_REQUEST_PORT}}"), {"spec.http[0].redirect.derivePort": I}),
    ("VirtualService", _http("{redirect: {derivePort: GUESS}}"), {"spec.http[0].redirect.derivePort": N}),
    ("VirtualService", _http("{directResponse: {status: 99, body: {}}}"), {"spec.http[0].directResponse.status": I, "spec.http[0].directResponse.body": R}),
    ("VirtualService", _http("{directResponse: {body: {string: a}}}"), {"spec.http[0].directResponse.status": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, rewrite: {{}}}}"), {"spec.http[0].rewrite": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, rewrite: {{uri: /a, uriRegexRewrite: {{match: a, rewrite: ''}}}}}}"), {"spec.http[0].rewrite.uriRegexRewrite": I, "spec.http[0].rewrite.uriRegexRewrite.rewrite": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, rewrite: {{uriRegexRewrite: {{match: '(', rewrite: a}}}}}}"), {"spec.http[0].rewrite.uriRegexRewrite.match": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, rewrite: {{authority: b}}, headers: {{request: {{set: {{Host: c}}}}}}}}"), {"spec.http[0].headers.request.set[Host]": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, headers: {{request: {{set: {{'x y': a, ':path': /, ok: 'a%b'}}, remove: [Host, ':method']}}, response: {{add: {{host: a}}}}}}}}"), {"spec.http[0].headers.request.set[x y]": I, "spec.http[0].headers.request.set[:path]": I, "spec.http[0].headers.request.set[ok]": I, "spec.http[0].headers.request.remove[0]": I, "spec.http[0].headers.request.remove[1]": I, "spec.http[0].headers.response.add[host]": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, timeout: -1s}}"), {"spec.http[0].timeout": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, timeout: 5}}"), {"spec.http[0].timeout": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, timeout: 1d}}"), {"spec.http[0].timeout": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, retries: {{attempts: 0, perTryTimeout: 1s}}}}"), {"spec.http[0].retries.perTryTimeout": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, retries: {{attempts: -1, retryOn: 'sometimes,99'}}}}"), {"spec.http[0].retries.attempts": I, "spec.http[0].retries.retryOn": N}),
    ("VirtualService", _http(f"{{{_ROUTE}, retries: {{attempts: 1, backoff: 1us}}}}"), {"spec.http[0].retries.backoff": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, fault: {{}}}}"), {"spec.http[0].fault": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, fault: {{delay: {{}}, abort: {{}}}}}}"), {"spec.http[0].fault.delay.fixedDelay": R, "spec.http[0].fault.abort": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, fault: {{delay: {{exponentialDelay: 1s}}, abort: {{http2Error: x}}}}}}"), {"spec.http[0].fault.delay.exponentialDelay": I, "spec.http[0].fault.delay.fixedDelay": R, "spec.http[0].fault.abort.http2Error": I, "spec.http[0].fault.abort": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, fault: {{abort: {{httpStatus: 500, grpcStatus: NOPE}}}}}}"), {"spec.http[0].fault.abort.grpcStatus": N}),
    ("VirtualService", _http(f"{{{_ROUTE}, fault: {{abort: {{httpStatus: 700, percentage: {{value: -1}}}}}}}}"), {"spec.http[0].fault.abort.percentage.value": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, mirror: {{host: b}}, mirrors: [{{destination: {{host: c}}}}]}}"), {"spec.http[0].mirrors": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, mirrorPercentage: {{value: 5}}}}"), {"spec.http[0].mirror": R}),
    ("VirtualService", _http(f"{{{_ROUTE}, mirror: {{host: b}}, mirrorPercent: 101}}"), {"spec.http[0].mirrorPercent": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, corsPolicy: {{allowMethods: [FETCH], allowHeaders: ['a b'], maxAge: 1.5s, allowOrigins: [{{}}]}}}}"), {"spec.http[0].corsPolicy.allowMethods[0]": N, "spec.http[0].corsPolicy.allowHeaders[0]": I, "spec.http[0].corsPolicy.maxAge": I, "spec.http[0].corsPolicy.allowOrigins[0]": R}),
    # conditions
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{uri: {{exact: /a, prefix: /b}}}}]}}"), {"spec.http[0].match[0].uri.prefix": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{uri: {{}}, method: {{prefix: ''}}}}]}}"), {"spec.http[0].match[0].uri": I, "spec.http[0].match[0].method": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{uri: {{regex: '(?=x)'}}, headers: {{a: {{regex: '['}}}}}}]}}"), {"spec.http[0].match[0].uri.regex": I, "spec.http[0].match[0].headers[a].regex": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{headers: {{'a b': {{}}, '': {{}}, '@request.auth.claims.x': {{exact: a}}}}}}]}}"), {"spec.http[0].match[0].headers[a b]": I, "spec.http[0].match[0].headers[]": I, "spec.http[0].match[0].headers[@request.auth.claims.x]": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{port: 70000}}]}}"), {"spec.http[0].match[0].port": I}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{sourceLabels: {{'a/b/c': x, d: 'y z'}}, sourceNamespace: A, queryParams: {{q: {{prefix: ''}}}}}}]}}"), {"spec.http[0].match[0].sourceLabels[a/b/c]": I, "spec.http[0].match[0].sourceLabels[d]": I, "spec.http[0].match[0].sourceNamespace": I, "spec.http[0].match[0].queryParams[q]": I}),
    # tls and tcp
    ("VirtualService", "{hosts: [a.com], tls: [{}]}", {"spec.tls[0].match": R, "spec.tls[0].route": R}),
    ("VirtualService", f"{{hosts: [a.com], tls: [{{match: [{{sniHosts: [b.com], port: 443}}, {{}}], {_ROUTE}}}]}}", {"spec.tls[0].match[0].sniHosts[0]": I, "spec.tls[0].match[1].sniHosts": R}),
    ("VirtualService", f"{{hosts: [a.com], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/33], sourceSubnet: x}}], {_ROUTE}}}, {{}}]}}", {"spec.tcp[0].match[0].destinationSubnets[0]": I, "spec.tcp[0].match[0].sourceSubnet": I, "spec.tcp[1].route": R}),
    # DestinationRule
    ("DestinationRule", "{}", {"spec.host": R}),
    ("DestinationRule", "{host: '', subsets: [{name: v_1}, {name: b, labels: {x: 'a*'}}, {name: b}]}", {"spec.host": R, "spec.subsets[0].name": I, "spec.subsets[1].labels[x]": I, "spec.subsets[2].name": D}),
    ("DestinationRule", "{host: a.*.b, workloadSelector: {}, exportTo: ['*']}", {"spec.host": I, "spec.workloadSelector.matchLabels": R, "spec.exportTo": I}),
    ("DestinationRule", _policy("{}"), {"spec.trafficPolicy": R}),
    ("DestinationRule", _policy("{portLevelSettings: [{}, {port: {number: 1}, tls: {}}, {port: {number: 1}, tls: {}}]}"), {"spec.trafficPolicy.portLevelSettings[0].port": R, "spec.trafficPolicy.portLevelSettings[0]": R, "spec.trafficPolicy.portLevelSettings[2].port.number": D}),
    ("DestinationRule", _policy("{loadBalancer: {simple: BEST}}"), {"spec.trafficPolicy.loadBalancer.simple": N}),
    ("DestinationRule", _policy("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash": I}),
    ("DestinationRule", _policy("{loadBalancer: {consistentHash: {}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash": R}),
    ("DestinationRule", _policy("{loadBalancer: {consistentHash: {httpHeaderName: 'a b', useSourceIp: true, ringHash: {}, maglev: {tableSize: 10}}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash.useSourceIp": I, "spec.trafficPolicy.loadBalancer.consistentHash.maglev": I, "spec.trafficPolicy.loadBalancer.consistentHash.httpHeaderName": I, "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize": I}),
    ("DestinationRule", _policy("{loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize": I}),
    ("DestinationRule", _policy("{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 8388609}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize": I}),
    ("DestinationRule", _policy("{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 4, maglev: {}}}}"), {"spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize": I, "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize": R}),
    ("DestinationRule", _policy("{loadBalancer: {simple: RANDOM, warmup: {duration: 1s, aggression: 0.5, minimumPercent: 101}}}"), {"spec.trafficPolicy.loadBalancer.warmup": I, "spec.trafficPolicy.loadBalancer.warmup.aggression": I, "spec.trafficPolicy.loadBalancer.warmup.minimumPercent": I}),
    ("DestinationRule", _policy("{loadBalancer: {simple: ROUND_ROBIN, warmup: {}}}"), {"spec.trafficPolicy.loadBalancer.warmup.duration": R}),
    ("DestinationRule", _policy("{loadBalancer: {localityLbSetting: {distribute: [{from: a/b/c/d, to: {x: 60, '*/y': 30}}, {from: b, to: {z: 0}}, {from: b}], failover: [{from: a, to: b}]}}}"), {"spec.trafficPolicy.loadBalancer.localityLbSetting.failover": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to[*/y]": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to[z]": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[2].from": D}),
    ("DestinationRule", _policy("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}, {from: a/b, to: c}], failoverPriority: [x, x]}}}"), {"spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[1].from": I, "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[1]": D}),
    ("DestinationRule", _policy("{connectionPool: {}}"), {"spec.trafficPolicy.connectionPool": R}),
    ("DestinationRule", _policy("{connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s}, http: {maxRetries: x}}}"), {"spec.trafficPolicy.connectionPool.tcp.connectTimeout": I, "spec.trafficPolicy.connectionPool.http.maxRetries": I}),
    ("DestinationRule", _policy("{connectionPool: {tcp: {maxConnections: -1}, http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true, http2MaxRequests: -2}}}"), {"spec.trafficPolicy.connectionPool.tcp.maxConnections": I, "spec.trafficPolicy.connectionPool.http.useClientProtocol": I, "spec.trafficPolicy.connectionPool.http.http2MaxRequests": I}),
    ("DestinationRule", _policy("{outlierDetection: {maxEjectionPercent: 101, consecutive5xxErrors: -1}}"), {"spec.trafficPolicy.outlierDetection.maxEjectionPercent": I, "spec.trafficPolicy.outlierDetection.consecutive5xxErrors": I}),
    ("DestinationRule", _policy("{outlierDetection: {consecutiveLocalOriginFailures: 2}}"), {"spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures": I}),
    ("DestinationRule", _policy("{tls: {mode: MUTUAL}}"), {"spec.trafficPolicy.tls.clientCertificate": R, "spec.trafficPolicy.tls.privateKey": R}),
    ("DestinationRule", _policy("{tls: {mode: ISTIO_MUTUAL, clientCertificate: /a}}"), {"spec.trafficPolicy.tls.clientCertificate": I}),
    ("DestinationRule", _policy("{tls: {mode: SIMPLE, credentialName: a, caCertificates: /a}}"), {"spec.trafficPolicy.tls.caCertificates": I}),
    ("DestinationRule", _policy("{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}}"), {"spec.trafficPolicy.tls.subjectAltNames": I}),
    ("DestinationRule", _policy("{tls: {mode: NEVER}}"), {"spec.trafficPolicy.tls.mode": N}),
    ("DestinationRule", _policy("{tunnel: {targetHost: '*.a', targetPort: 1}, proxyProtocol: {}}"), {"spec.trafficPolicy.proxyProtocol": I, "spec.trafficPolicy.tunnel.targetHost": I}),
    ("DestinationRule", _policy("{tunnel: {protocol: CONNECT, targetHost: a.example.com, targetPort: 443}}"), {"spec.trafficPolicy.tunnel": N}),
    ("VirtualService", _http(f"{{{_ROUTE}, match: [{{statPrefix: a}}]}}"), {"spec.http[0].match[0].statPrefix": N}),
    ("RequestAuthentication", "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: edge}]}", {"spec.targetRefs": N}),
    ("EnvoyFilter", _patch("{applyTo: HTTP_FILTER, patch: {operation: ADD, filterClass: AUTHZ, value: {name: x}}}"), {"spec.configPatches[0].patch.filterClass": N}),
    # Gateway
    ("Gateway", "{selector: {a: 'b*'}}", {"spec.servers": R, "spec.selector[a]": I}),
    ("Gateway", _server("{port: {number: 80, name: '', protocol: HTTP}}"), {"spec.servers[0].port.name": R, "spec.servers[0].hosts": R}),
    ("Gateway", _server("{port: {number: 80, name: a, protocol: FTP, targetPort: 1}, hosts: ['a.*', B_/x, 'x/y z'], bind: host}"), {"spec.servers[0].port.protocol": N, "spec.servers[0].port.targetPort": I, "spec.servers[0].hosts[0]": I, "spec.servers[0].hosts[1]": I, "spec.servers[0].hosts[2]": I, "spec.servers[0].bind": I}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a]}"), {"spec.servers[0].tls": R}),
    ("Gateway", _server("{port: {number: 80, name: a, protocol: HTTP}, hosts: [a], tls: {mode: SIMPLE, credentialName: x}}"), {"spec.servers[0].tls": I}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE}}"), {"spec.servers[0].tls.serverCertificate": R}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: MUTUAL, serverCertificate: /a}}"), {"spec.servers[0].tls.privateKey": R, "spec.servers[0].tls.caCertificates": R}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: MUTUAL, tlsCertificates: [{serverCertificate: /a, privateKey: /b}]}}"), {"spec.servers[0].tls.caCertificates": R}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: OPTIONAL_MUTUAL, credentialNames: [x], caCertificates: /a}}"), {"spec.servers[0].tls.caCertificates": I}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, credentialName: x, tlsCertificates: [{}], caCrl: /x}}"), {"spec.servers[0].tls.tlsCertificates": I, "spec.servers[0].tls.caCrl": I, "spec.servers[0].tls.tlsCertificates[0].serverCertificate": R, "spec.servers[0].tls.tlsCertificates[0].privateKey": R}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: ISTIO_MUTUAL, credentialName: x}}"), {"spec.servers[0].tls.credentialName": I}),
    ("Gateway", _server("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a], tls: {mode: AUTO_PASSTHROUGH, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}"), {"spec.servers[0].tls.mode": N, "spec.servers[0].tls.maxProtocolVersion": I}),
    ("Gateway", _server("{port: {number: 80, name: a, protocol: HTTP}, hosts: [a], name: s}, {port: {number: 80, name: a, protocol: HTTPS}, hosts: [a], tls: {}, name: s}"), {"spec.servers[1].port.name": D, "spec.servers[1].name": D, "spec.servers[1].port.protocol": I}),
    # ServiceEntry
    ("ServiceEntry", "{}", {"spec.hosts": R}),
    ("ServiceEntry", f"{{hosts: ['*', a, a, 'x*y'], {_PORT}}}", {"spec.hosts[0]": I, "spec.hosts[2]": D, "spec.hosts[3]": I}),
    ("ServiceEntry", f"{{hosts: ['*.a.com'], resolution: DNS, addresses: [10.0.0.0/8, x], {_PORT}}}", {"spec.hosts[0]": I, "spec.addresses[0]": I, "spec.addresses[1]": I}),
    ("ServiceEntry", f"{{hosts: [a], resolution: NONE, endpoints: [{{address: 1.1.1.1}}], {_PORT}}}", {"spec.endpoints": I}),
    ("ServiceEntry", f"{{hosts: [a], resolution: STATIC, endpoints: [{{address: b.com}}, {{}}, {{address: 1.1.1.1, ports: {{x: 1}}}}], {_PORT}}}", {"spec.endpoints[0].address": I, "spec.endpoints[1].address": R, "spec.endpoints[2].ports[x]": I}),
    ("ServiceEntry", f"{{hosts: [a], resolution: DNS, endpoints: [{{address: 'unix:///a'}}], workloadSelector: {{labels: {{a: b}}}}, {_PORT}}}", {"spec.workloadSelector": I, "spec.endpoints[0].address": I}),
    ("ServiceEntry", f"{{hosts: [a], resolution: DNS_ROUND_ROBIN, endpoints: [{{address: b}}, {{address: c}}], {_PORT}}}", {"spec.endpoints": I}),
    ("ServiceEntry", "{hosts: [a, b], resolution: DNS, ports: [{number: 80, name: tcp, protocol: TCP}]}", {"spec.ports[0].protocol": I}),
    ("ServiceEntry", "{hosts: [a], ports: [{number: 80, name: a, protocol: X}, {number: 80, name: a, protocol: TCP}, {number: 0, name: b}]}", {"spec.ports[2].number": I}),
    ("ServiceEntry", "{hosts: [a], ports: [{number: 80, name: a, protocol: X}, {number: 80, name: a, protocol: TCP}, {number: 1, name: ''}, {number: 2, name: A_b}]}", {"spec.ports[0].protocol": N, "spec.ports[1].number": D, "spec.ports[1].name": D, "spec.ports[2].name": R, "spec.ports[3].name": I}),
    ("ServiceEntry", "{hosts: [a], location: MOON, resolution: GUESS}", {"spec.location": N, "spec.resolution": N}),
    # WorkloadEntry, WorkloadGroup
    ("WorkloadEntry", "{}", {"spec.address": R}),
    ("WorkloadEntry", "{address: 'unix:///dir/'}", {"spec.address": I}),
    ("WorkloadEntry", "{address: 'a b', ports: {http: 0}}", {"spec.ports[http]": I}),
    ("WorkloadEntry", "{address: 'unix://x', ports: {http: 1}, labels: {'': x}, locality: a/b/c/d, serviceAccount: A}", {"spec.address": I, "spec.ports": I, "spec.labels[]": I, "spec.locality": I, "spec.serviceAccount": I}),
    ("WorkloadGroup", "{}", {"spec.template": R}),
    ("WorkloadGroup", "{template: {address: 1.1.1.1}, probe: {}}", {"spec.template.address": I, "spec.probe": R}),
    ("WorkloadGroup", "{template: {}, probe: {periodSeconds: -1, httpGet: {port: 80, path: x, scheme: ftp, httpHeaders: [{name: 'a b'}]}, tcpSocket: {port: 1}}}", {"spec.probe.tcpSocket": I, "spec.probe.periodSeconds": I, "spec.probe.httpGet.path": I, "spec.probe.httpGet.scheme": N, "spec.probe.httpGet.httpHeaders[0].name": I}),
    ("WorkloadGroup", "{template: {}, probe: {exec: {command: []}}, metadata: {labels: {a: ' '}}}", {"spec.probe.exec.command": R, "spec.metadata.labels[a]": I}),
    ("WorkloadGroup", "{template: {}, probe: {exec: {command: [cat, /tmp/healthy]}}}", {"spec.probe.exec": N}),
    ("WorkloadGroup", "{template: {}, probe: {grpc: {}}}", {"spec.probe.grpc.port": R}),
    # Sidecar
    ("Sidecar", "{}", {"spec": R}),
    ("Sidecar", "{egress: [{hosts: []}]}", {"spec.egress[0].hosts": R}),
    ("Sidecar", "{egress: [{hosts: [a, A/*, '~/x', './a*']}, {hosts: [./*]}]}", {"spec.egress[0]": I, "spec.egress[0].hosts[0]": I, "spec.egress[0].hosts[1]": I, "spec.egress[0].hosts[2]": I, "spec.egress[0].hosts[3]": I}),
    ("Sidecar", "{egress: [{port: {number: 80, protocol: HTTP}, hosts: [./*]}, {port: {number: 80, protocol: HTTP}, hosts: [./*]}, {port: {protocol: X}, hosts: [./*], bind: h}, {bind: 'unix:///a', captureMode: IPTABLES, hosts: [./*]}]}", {"spec.egress[1].port.number": D, "spec.egress[2].port.number": R, "spec.egress[2].port.protocol": N, "spec.egress[2].bind": I, "spec.egress[3].bind": I, "spec.egress[3].captureMode": I}),
    ("Sidecar", "{ingress: [{port: {protocol: HTTP, name: A_}, defaultEndpoint: '10.0.0.1:80', bind: 'unix:///a'}, {port: {number: 1, protocol: TCP, targetPort: 2}, defaultEndpoint: '127.0.0.1:x'}, {port: {number: 1, protocol: TCP}}]}", {"spec.ingress[0].port.number": R, "spec.ingress[0].port.name": I, "spec.ingress[0].defaultEndpoint": I, "spec.ingress[0].bind": I, "spec.ingress[1].port.targetPort": I, "spec.ingress[1].defaultEndpoint": I, "spec.ingress[2].port.number": D}),
    ("Sidecar", "{ingress: [{port: {number: 1, protocol: TCP}, tls: {mode: ISTIO_MUTUAL, httpsRedirect: true, subjectAltNames: [a]}}]}", {"spec.ingress[0].tls": I, "spec.ingress[0].tls.mode": I, "spec.ingress[0].tls.httpsRedirect": I, "spec.ingress[0].tls.subjectAltNames": I}),
    ("Sidecar", "{outboundTrafficPolicy: {egressProxy: {host: a}}, workloadSelector: {labels: {a: '*'}}}", {"spec.outboundTrafficPolicy.egressProxy": I, "spec.outboundTrafficPolicy.egressProxy.port": R, "spec.workloadSelector.labels[a]": I}),
    # ProxyConfig, EnvoyFilter, Telemetry
    ("ProxyConfig", "{concurrency: -1, environmentVariables: {A: 1}}", {"spec.environmentVariables[A]": I}),
    ("ProxyConfig", "{concurrency: -1}", {"spec.concurrency": I}),
    ("EnvoyFilter", "{}", {"spec.configPatches": R}),
    ("EnvoyFilter", _patch("{applyTo: CLUSTER, patch: {operation: MERGE}}"), {"spec.configPatches[0].patch.value": R}),
    ("EnvoyFilter", _patch("{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}}"), {"spec.configPatches[0].applyTo": N}),
    ("EnvoyFilter", _patch("{applyTo: CLUSTER, match: {listener: {}}, patch: {operation: INSERT_FIRST, value: {conect_timeout: 1s}}}"), {"spec.configPatches[0].match.listener": I, "spec.configPatches[0].patch.operation": N, "spec.configPatches[0].patch.value": I}),
    ("EnvoyFilter", _patch("{applyTo: HTTP_FILTER, patch: {operation: ADD, value: {name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lau}}}}"), {"spec.configPatches[0].patch.value.typed_config[@type]": I}),
    ("EnvoyFilter", _patch("{applyTo: NETWORK_FILTER, match: {cluster: {}, listener: {filterChain: {filter: {subFilter: {}}}}}, patch: {operation: REMOVE, value: {}}}"), {"spec.configPatches[0].match.cluster": I, "spec.configPatches[0].match.listener.filterChain.filter.subFilter": I, "spec.configPatches[0].patch.value": I}),
    ("EnvoyFilter", _patch("{applyTo: VIRTUAL_HOST, match: {proxy: {proxyVersion: '('}}, patch: {operation: REPLACE, value: {}}}"), {"spec.configPatches[0].match.proxy.proxyVersion": I}),
    ("EnvoyFilter", _patch("{applyTo: VIRTUAL_HOST, patch: {operation: REPLACE, value: {}}}"), {"spec.configPatches[0].patch.operation": N}),
    ("Telemetry", "{tracing: [{providers: [{name: ''}], randomSamplingPercentage: 101.0, customTags: {a: {}}}]}", {"spec.tracing[0].randomSamplingPercentage": I}),
    ("Telemetry", "{tracing: [{providers: [{name: ''}], customTags: {a: {}}}], metrics: [{overrides: [{match: {metric: REQUEST_COUNT, customMetric: x}, tagOverrides: {a: {operation: REMOVE, value: x}, b: {}}}]}], selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: a, namespace: b}}", {"spec.targetRef": I, "spec.targetRef.namespace": I, "spec.tracing[0].providers[0].name": R, "spec.tracing[0].customTags[a]": R, "spec.metrics[0].overrides[0].match.customMetric": I, "spec.metrics[0].overrides[0].tagOverrides[a].value": I, "spec.metrics[0].overrides[0].tagOverrides[b].value": R}),
    # Security
    ("PeerAuthentication", "{portLevelMtls: {0: {mode: STRICT}, x: {mode: STRICT}}, mtls: {mode: STRICT}}", {"spec.selector": R, "spec.portLevelMtls[0]": I, "spec.portLevelMtls[x]": I}),
    ("PeerAuthentication", "{mtls: {mode: MAYBE}}", {"spec.mtls.mode": N}),
    ("RequestAuthentication", "{jwtRules: [{}]}", {"spec.jwtRules[0].issuer": R}),
    ("RequestAuthentication", "{jwtRules: [{issuer: a, jwksUri: ftp://x, jwks: '{', audiences: [''], outputClaimToHeaders: [{header: 'a b', claim: ''}], fromHeaders: [{name: ''}], outputPayloadToHeader: 'x y'}]}", {"spec.jwtRules[0].jwks": I, "spec.jwtRules[0].jwksUri": I, "spec.jwtRules[0].audiences[0]": R, "spec.jwtRules[0].outputClaimToHeaders[0].header": I, "spec.jwtRules[0].outputClaimToHeaders[0].claim": R, "spec.jwtRules[0].fromHeaders[0].name": I, "spec.jwtRules[0].outputPayloadToHeader": I}),
    ("AuthorizationPolicy", "{action: DENY}", {"spec.rules": R}),
    ("AuthorizationPolicy", "{action: CUSTOM, rules: [{from: [{source: {principals: [a]}}], when: [{key: source.principal, values: [a]}]}]}", {"spec.provider.name": R, "spec.rules[0].from[0].source.principals": I, "spec.rules[0].when[0].key": I}),
    ("AuthorizationPolicy", "{provider: {name: a}, rules: [{from: [], to: []}]}", {"spec.provider": I, "spec.rules[0].from": R, "spec.rules[0].to": R}),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {}}, {}], to: [{operation: {}}]}]}", {"spec.rules[0].from[1].source": R}),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {}}], to: [{operation: {}}, {operation: {ports: ['0', x], methods: [''], paths: ['/{a}', '/{**}/{*}', '/{*}/*']}}], when: [{key: '', values: [a]}, {key: request.headers, values: [a]}, {key: 'source.ip[x]', values: [a]}, {key: source.ip, values: [a]}, {key: destination.port, notValues: [x]}, {key: source.namespace}]}]}", {"spec.rules[0].from[0].source": R, "spec.rules[0].to[0].operation": R, "spec.rules[0].to[1].operation.ports[0]": I, "spec.rules[0].to[1].operation.ports[1]": I, "spec.rules[0].to[1].operation.methods[0]": R, "spec.rules[0].to[1].operation.paths[0]": I, "spec.rules[0].to[1].operation.paths[1]": I, "spec.rules[0].to[1].operation.paths[2]": I, "spec.rules[0].when[0].key": R, "spec.rules[0].when[1].key": I, "spec.rules[0].when[2].key": I, "spec.rules[0].when[2].values[0]": I, "spec.rules[0].when[3].values[0]": I, "spec.rules[0].when[4].notValues[0]": I, "spec.rules[0].when[5].values": R}),
    # what proxies refuse as a whole listener
    ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['{*}', 'a/{*}', '/{*}//', '//{*}', '/a b/{*}', '/ä/{**}', '/x//{*}']}}]}]}", {f"spec.rules[0].to[0].operation.paths[{index}]": I for index in range(7)}),
    ("AuthorizationPolicy", "{rules: [{when: [{key: 'request.auth.claims[a][]', values: [x]}, {key: 'request.headers[a b]', values: [x]}, {key: 'experimental.envoy.filters.a', values: [x]}, {key: 'experimental.envoy.filters.a[]', values: [x]}]}]}", {f"spec.rules[0].when[{index}].key": I for index in range(4)}),
    *(("RequestAuthentication", f"{{jwtRules: [{{issuer: a, jwksUri: '{uri}'}}]}}", {"spec.jwtRules[0].jwksUri": I}) for uri in ("https://a_b.c/x", "https://ex ample/x", "https://ü.com/x", "http://auth_svc:80/x")),
    ("AuthorizationPolicy", "{rules: [{from: [{source: {serviceAccounts: [a/b/c], namespaces: [x], ipBlocks: ['1.1']}}]}]}", {"spec.rules[0].from[0].source.namespaces": I, "spec.rules[0].from[0].source.serviceAccounts[0]": I, "spec.rules[0].from[0].source.ipBlocks[0]": I}),
    # Kubernetes' own
    ("Service", "{selector: {a: b}}", {"spec.ports": R}),
    ("Service", "{ports: [{port: 80}, {port: 80, name: A}, {port: 70000}]}", {"spec.ports[2].port": I}),
    ("Service", "{ports: [{port: 80}, {port: 80, name: A, targetPort: 0}, {port: 81, name: b, targetPort: A_}, {port: 82, name: b}], clusterIP: x}", {"spec.ports[0].name": R, "spec.ports[1].name": I, "spec.ports[1].port": D, "spec.ports[1].targetPort": I, "spec.ports[2].targetPort": I, "spec.ports[3].name": D, "spec.clusterIP": I}),
    ("Service", "{type: ExternalName}", {"spec.externalName": R}),
    ("Service", "{ports: [{port: 80, targetPort: [1]}], sesionAffinity: None}", {"spec.ports[0].targetPort": I, "spec.sesionAffinity": I}),
    ("Endpoints", "{subsets: [{addresses: [{ip: a}], ports: [{port: 0}]}]}", {"subsets[0].ports[0].port": I}),
    ("Endpoints", "{subsets: [{addresses: [{ip: a}]}]}", {"subsets[0].addresses[0].ip": I}),
    ("EndpointSlice", "{addressType: IPv4, endpoints: [{addresses: ['::1']}]}", {"endpoints[0].addresses[0]": I}),
    ("EndpointSlice", "{endpoints: []}", {"addressType": R}),
    ("Namespace", "{finalisers: []}", {"spec.finalisers": I}),
    ("Pod", "{containers: [{image: a, ports: [{containerPort: 0}]}]}", {"spec.containers[0].name": R, "spec.containers[0].ports[0].containerPort": I}),
    ("Secret", "{type: kubernetes.io/tls, data: {tls.crt: '!'}}", {"data[tls.crt]": I, "data[tls.key]": R}),
    ("Secret", "{data: {a: 1}}", {"data[a]": I}),
    ("ConfigMap", "{data: {a: 1}, binaryData: {b: '!'}}", {"data[a]": I}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "expected"), BAD, ids=[f"{index}-{kind}" for index, (kind, *_) in enumerate(BAD)]
)
def test_is_refused_by_field_and_reason(kind: str, body: str, expected: dict[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document(kind, body))
    assert {cause.path: cause.reason.value for cause in caught.value.causes} == expected
    assert all(len(cause.message) > 10 for cause in caught.value.causes)


def test_every_kind_is_in_the_table() -> None:
    assert {kind for kind, *_ in BAD} == set(KINDS)


def test_the_mesh_configuration_is_judged_within_its_config_map() -> None:
    made = document("ConfigMap", "{data: {mesh: 'trustDomain: a b'}}", name="istio", namespace="istio-system")
    with pytest.raises(Invalid) as caught:
        parse(made)
    assert [cause.path for cause in caught.value.causes] == ["data[mesh].trustDomain"]
