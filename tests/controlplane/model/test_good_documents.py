# ruff: noqa: E501
"""Documents such as people write, of every kind: they are taken."""

from __future__ import annotations

import pytest

from controlplane.model.kinds import KINDS
from controlplane.model.parsing import parse
from tests.controlplane.model.documents import document

GOOD = [
    # VirtualService
    ("VirtualService", "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}"),
    ("VirtualService", "{hosts: [reviews.shop.svc.cluster.local, 10.0.0.7], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 75}, {destination: {host: reviews, subset: v2}, weight: 25}]}]}"),
    ("VirtualService", "{hosts: ['*'], gateways: [edge], http: [{match: [{uri: {prefix: /}}], route: [{destination: {host: front, port: {number: 80}}}]}]}"),
    ("VirtualService", "{hosts: ['*.example.com'], gateways: [edge, other/gate, mesh], http: [{name: a, redirect: {uri: /b, authority: b.example.com, redirectCode: 302}}, {name: b, redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}}, {name: c, redirect: {port: 8443}}]}"),
    ("VirtualService", "{hosts: [a], http: [{directResponse: {status: 503, body: {string: closed}}}, {directResponse: {status: 200, body: {bytes: aGk=}}}, {directResponse: {status: 204}}]}"),
    ("VirtualService", "{hosts: [a], http: [{match: [{uri: {exact: /a}, method: {regex: 'GET|HEAD'}, scheme: {exact: https}, authority: {prefix: a.}, headers: {x-user: {exact: jo}, x-any: {}}, withoutHeaders: {x-no: {prefix: a}}, queryParams: {q: {exact: ''}, r: {regex: '\\d+$'}}, port: 80, sourceLabels: {app: web}, sourceNamespace: shop, ignoreUriCase: true, name: m}], route: [{destination: {host: a}}]}]}"),
    ("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a}, headers: {request: {set: {x-a: '%HOSTNAME%', ':authority': b}, add: {x-b: '100%%'}, remove: [x-c]}, response: {add: {x-d: '%DOWNSTREAM_REMOTE_ADDRESS%'}}}}], timeout: 0s, retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,reset,503', retryRemoteLocalities: true, retryIgnorePreviousHosts: false, backoff: 25ms}}]}"),
    ("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a}}], fault: {delay: {fixedDelay: 2s, percentage: {value: 0.1}}, abort: {httpStatus: 503, percentage: {value: 100}}}, mirror: {host: b}, mirrorPercentage: {value: 10}}, {route: [{destination: {host: a}}], fault: {abort: {grpcStatus: UNAVAILABLE}}, mirrors: [{destination: {host: b}, percentage: {value: 1}}, {destination: {host: c}}]}, {route: [{destination: {host: a}}], fault: {delay: {fixedDelay: 1s, percent: 5}}, mirror: {host: d}, mirrorPercent: 50}]}"),
    ("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a}}], corsPolicy: {allowOrigins: [{exact: 'https://a.example.com'}, {regex: 'https://.*'}], allowMethods: [GET, POST], allowHeaders: [x-a, '*'], exposeHeaders: [x-b], maxAge: 24h, allowCredentials: false, unmatchedPreflights: IGNORE}}]}"),
    ("VirtualService", "{hosts: [a], http: [{match: [{uri: {prefix: /old}}], rewrite: {uri: /new, authority: b}, route: [{destination: {host: a}}]}, {rewrite: {uriRegexRewrite: {match: '^/x/([^/]+)', rewrite: '/y/\\1'}}, route: [{destination: {host: a}}]}]}"),
    ("VirtualService", "{hosts: [a], http: [{match: [{uri: {prefix: /r}}], delegate: {name: reviews, namespace: other}, timeout: 3s}]}"),
    ("VirtualService", "{http: [{route: [{destination: {host: a}}]}]}"),
    ("VirtualService", "{hosts: ['*.example.com', b.example.org], gateways: [edge], tls: [{match: [{port: 443, sniHosts: [a.example.com, '*.c.example.com']}], route: [{destination: {host: a}, weight: 1}]}]}"),
    ("VirtualService", "{hosts: [mongo], tcp: [{match: [{port: 27017, destinationSubnets: [10.0.0.0/8], sourceLabels: {a: b}, sourceSubnet: 10.1.0.0/16}], route: [{destination: {host: mongo, port: {number: 5555}}}]}, {route: [{destination: {host: mongo}}]}], exportTo: ['.']}"),
    ("VirtualService", "{hosts: [a.example.com], gateways: [edge], http: [{match: [{headers: {'@request.auth.claims.sub': {exact: jo}, '@request.auth.claims[group][x]': {exact: a}}}], route: [{destination: {host: a}}]}], exportTo: [shop, other]}"),
    # DestinationRule
    ("DestinationRule", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}, {name: all}]}"),
    ("DestinationRule", "{host: '*.example.com', trafficPolicy: {tls: {mode: SIMPLE}}, exportTo: ['*']}"),
    ("DestinationRule", "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms, tcpKeepalive: {probes: 9, time: 7200s, interval: 75s}, idleTimeout: 0s, maxConnectionDuration: 1h}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 3, idleTimeout: 1h, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 100}}, outlierDetection: {consecutive5xxErrors: 7, consecutiveGatewayErrors: 0, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 50, minHealthPercent: 0, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 3}}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user, path: /, ttl: 0s, attributes: [{name: SameSite, value: Strict}]}, ringHash: {minimumRingSize: 1024}}}}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 65537}}}, portLevelSettings: [{port: {number: 80}, loadBalancer: {consistentHash: {useSourceIp: true}}}, {port: {number: 81}, loadBalancer: {consistentHash: {httpQueryParameterName: q, minimumRingSize: 10}}}]}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 60s, minimumPercent: 10, aggression: 1.5}, localityLbSetting: {enabled: true, distribute: [{from: us-west/zone1/*, to: {us-west/zone1/*: 80, us-west/zone2/*: 20}}, {from: '*', to: {eu: 100}}]}}}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmupDurationSecs: 60s, localityLbSetting: {failover: [{from: us-east, to: eu-west}], failoverPriority: [topology.kubernetes.io/region, 'version=v1']}}}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem, sni: a.example.com, subjectAltNames: [spiffe://cluster.local/ns/a/sa/b]}}}"),
    ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: MUTUAL, credentialName: client}}, workloadSelector: {matchLabels: {app: a}}, exportTo: ['.']}"),
    ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: b}, proxyProtocol: {version: V2}, retryBudget: {percent: 20.0, minRetryConcurrency: 3}}}"),
    # Gateway
    ("Gateway", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example.com, '*.example.com', ./b.example.com, '*/c.example.com', shop/*], tls: {httpsRedirect: true}}, {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: cert, minProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384]}}]}"),
    ("Gateway", "{servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}, bind: 10.0.0.1, name: pass}, {port: {number: 15443, name: auto, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}, {port: {number: 2379, name: mongo, protocol: MONGO}, hosts: ['*']}]}"),
    ("Gateway", "{servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a], tls: {mode: MUTUAL, serverCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem, verifyCertificateHash: [ab], subjectAltNames: [x]}}, {port: {number: 444, name: two, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, tlsCertificates: [{serverCertificate: /r.pem, privateKey: /rk.pem}, {serverCertificate: /e.pem, privateKey: /ek.pem}]}}, {port: {number: 445, name: three, protocol: HTTPS}, hosts: [a], tls: {mode: ISTIO_MUTUAL}}]}"),
    # ServiceEntry
    ("ServiceEntry", "{hosts: [api.example.com], location: MESH_EXTERNAL, ports: [{number: 443, name: https, protocol: TLS}], resolution: DNS}"),
    ("ServiceEntry", "{hosts: [mongo.internal], addresses: [192.192.192.192/24], ports: [{number: 27018, name: mongo, protocol: MONGO}], location: MESH_INTERNAL, resolution: STATIC, endpoints: [{address: 2.2.2.2, ports: {mongo: 1}, labels: {app: m}, locality: eu/a/b, weight: 3}, {address: 'unix:///var/run/a.sock'}]}"),
    ("ServiceEntry", "{hosts: ['*x', '*-a.b'], workloadSelector: {}}"),
    ("ServiceEntry", "{hosts: ['*.example.com'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: NONE}"),
    ("ServiceEntry", "{hosts: ['*.example.com', b.example.org], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: DNS, endpoints: [{address: a.example.com, ports: {http: 80}}, {address: b.example.com}]}"),
    ("ServiceEntry", "{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.example.com}]}"),
    ("ServiceEntry", "{hosts: [details.internal], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: raw}], resolution: STATIC, workloadSelector: {labels: {app: details}}, subjectAltNames: [spiffe://cluster.local/ns/a/sa/b], exportTo: ['~']}"),
    # WorkloadEntry, WorkloadGroup
    ("WorkloadEntry", "{address: 10.0.0.7, ports: {http: 8080}, labels: {app: details, version: v1}, serviceAccount: details, network: vm, locality: eu/a, weight: 2}"),
    ("WorkloadEntry", "{address: vm1.example.com}"),
    ("WorkloadEntry", "{address: 'unix://@name'}"),
    ("WorkloadEntry", "{network: far}"),
    ("WorkloadGroup", "{metadata: {labels: {app: reviews}, annotations: {x: y}}, template: {ports: {http: 9080}, serviceAccount: bookinfo, network: n, locality: eu/a}, probe: {initialDelaySeconds: 5, timeoutSeconds: 3, periodSeconds: 4, successThreshold: 3, failureThreshold: 3, httpGet: {path: /health, host: 127.0.0.1, port: 3100, scheme: HTTPS, httpHeaders: [{name: X, value: y}]}}}"),
    ("WorkloadGroup", "{template: {}, probe: {tcpSocket: {port: 80}}}"),
    ("WorkloadGroup", "{template: {}, probe: {grpc: {port: 9000, service: a}}}"),
    # Sidecar
    ("Sidecar", "{egress: [{hosts: [./*, istio-system/*]}]}"),
    ("Sidecar", "{workloadSelector: {labels: {app: a}}, ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: 'unix:///var/run/a.sock'}, {port: {number: 9081, protocol: TCP, name: t}, bind: 127.0.1.1, defaultEndpoint: '127.0.0.1:81', captureMode: NONE, connectionPool: {tcp: {maxConnections: 1}}}], egress: [{port: {number: 9090, protocol: HTTP, name: e}, bind: 127.0.0.1, hosts: [shop/*.example.com]}, {port: {protocol: TCP}, bind: 'unix:///x.sock', hosts: ['*/db']}, {hosts: ['~/*']}], outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: gate.a, port: {number: 80}}}, inboundConnectionPool: {http: {maxRetries: 1}}}"),
    ("Sidecar", "{ingress: [{port: {number: 443, protocol: HTTPS, name: h}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}, defaultEndpoint: '[::1]:80'}]}"),
    # ProxyConfig, EnvoyFilter, Telemetry
    ("ProxyConfig", "{selector: {matchLabels: {app: a}}, concurrency: 0, environmentVariables: {A: b}, image: {imageType: distroless}}"),
    ("EnvoyFilter", "{workloadSelector: {labels: {app: a}}, priority: 10, configPatches: [{applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND, proxy: {proxyVersion: '^1\\.2.*', metadata: {a: b}}, listener: {portNumber: 80, filterChain: {sni: a, filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}, patch: {operation: INSERT_BEFORE, value: {name: lua, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, defaultSourceCode: {inlineString: x}}}}}]}"),
    ("EnvoyFilter", "{configPatches: [{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND, cluster: {service: a.shop.svc.cluster.local, portNumber: 80, subset: v1}}, patch: {operation: MERGE, value: {connect_timeout: 0.5s}}}, {applyTo: CLUSTER, patch: {operation: REMOVE}, match: {cluster: {name: x}}}, {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {gateway: shop/edge, vhost: {name: 'a:80', route: {action: ANY}}}}, patch: {operation: MERGE, value: {require_tls: ALL}}}, {applyTo: NETWORK_FILTER, patch: {operation: ADD, value: {name: envoy.filters.network.echo}}}]}"),
    ("Telemetry", "{tracing: [{providers: [{name: zipkin}], randomSamplingPercentage: 10, customTags: {a: {literal: {value: b}}, c: {header: {name: x, defaultValue: y}}, e: {environment: {name: E}}}}], metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {m: {value: request.method}, r: {operation: REMOVE}}}, {match: {customMetric: x}, disabled: true}], reportingInterval: 5s}], accessLogging: [{match: {mode: CLIENT}, providers: [{name: envoy}], filter: {expression: 'response.code >= 400'}}, {disabled: true}]}"),
    # Security
    ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    ("PeerAuthentication", "{selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: DISABLE}}}"),
    ("RequestAuthentication", "{selector: {matchLabels: {app: a}}, jwtRules: [{issuer: https://issuer.example.com, jwksUri: https://issuer.example.com/jwks, audiences: [a], fromHeaders: [{name: x-token, prefix: 'JWT '}], fromParams: [token], fromCookies: [t], outputPayloadToHeader: x-p, forwardOriginalToken: true, outputClaimToHeaders: [{header: x-sub, claim: nested.sub}], timeout: 5s}, {issuer: b, jwks: '{\"keys\": []}'}]}"),
    ("AuthorizationPolicy", "{}"),
    ("AuthorizationPolicy", "{rules: [{}]}"),
    ("AuthorizationPolicy", "{selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/sleep, '*/sa/x', '*'], notNamespaces: [bad]}}, {source: {serviceAccounts: [a, shop/b], ipBlocks: [10.0.0.1, 10.0.0.0/8, '::1/128'], remoteIpBlocks: [1.2.3.4]}}], to: [{operation: {methods: [GET], paths: ['/info*', '*/x', '/a/{*}/b/{**}'], ports: ['80'], notHosts: ['*.bad.com'], hosts: [a]}}], when: [{key: 'request.auth.claims[iss]', values: [x]}, {key: 'request.headers[x-a]', notValues: [b]}, {key: destination.port, values: ['80']}, {key: source.ip, values: [10.0.0.0/8]}, {key: connection.sni, values: [a]}]}]}"),
    ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/admin]}}]}]}"),
    # Kubernetes' own
    ("Service", "{selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080, protocol: TCP, appProtocol: http2}, {name: dns, port: 53, protocol: UDP, targetPort: dns}], clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], type: NodePort, sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}"),
    ("Service", "{clusterIP: None, selector: {app: db}}"),
    ("Service", "{type: ExternalName, externalName: a.example.com}"),
    ("Endpoints", "{subsets: [{addresses: [{ip: 10.0.0.1, nodeName: n, targetRef: {kind: Pod, name: p, namespace: x, uid: u}}], notReadyAddresses: [{ip: '::1'}], ports: [{name: http, port: 80, protocol: TCP}]}]}"),
    ("EndpointSlice", "{addressType: IPv4, endpoints: [{addresses: [10.0.0.1], conditions: {ready: true, serving: true, terminating: false}, zone: a, hints: {forZones: [{name: a}]}}], ports: [{name: http, port: 80}]}"),
    ("Namespace", "{finalizers: [kubernetes]}"),
    ("Pod", "{containers: [{name: app, image: a:1, ports: [{containerPort: 80, name: http, hostPort: 80}], env: [{name: A, value: b}], resources: {}}], serviceAccountName: a, nodeName: n, restartPolicy: Always, volumes: [], tolerations: []}"),
    ("Secret", "{type: kubernetes.io/tls, data: {tls.crt: YQ==, tls.key: Yg==}}"),
    ("Secret", "{stringData: {password: x}, immutable: true}"),
    ("ConfigMap", "{data: {a: b}, binaryData: {c: AAA=}}"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body"), GOOD, ids=[f"{index}-{kind}" for index, (kind, _) in enumerate(GOOD)])
def test_is_taken(kind: str, body: str) -> None:
    assert parse(document(kind, body)).key.kind == kind


def test_every_kind_is_in_the_table() -> None:
    assert {kind for kind, _ in GOOD} == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_version_of_a_kind_is_taken(kind: str) -> None:
    body = next(body for known, body in GOOD if known == kind)
    for version in KINDS[kind].api_versions:
        assert parse(document(kind, body) | {"apiVersion": version}).document["apiVersion"] == version
