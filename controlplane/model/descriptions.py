"""What fields mean, in one sentence each, for `kubectl explain`: by the model that has them, under their names in documents.

Fields whose values are models are described by these. Istio's reference says more of each.
"""

from __future__ import annotations

from collections.abc import Mapping

_PORT = "The port's number."
_GATEWAYS = "Gateways at which this holds, in place of those of the VirtualService; mesh stands for the sidecars."
_LABELS = "Labels that the calling workload must have."
_NAMESPACE = "The namespace of the calling workload."
_EXPORT = 'Namespaces that see this: names, "." for this one, "*" for all (the default).'
_CERTIFICATE = "A file with the certificate chain."
_KEY = "A file with the private key."
_ROOTS = "A file with the certificates that the other side's is checked against."
_SIDE = "The side of the traffic that is meant: CLIENT, SERVER or both."

_WORKLOAD = {
    "address": "An IP, a DNS name, or unix:///path.",
    "ports": "The workload's own port for ports of services, by their names.",
    "labels": "Labels by which services and policies select it.",
    "network": "The network that it is in.",
    "locality": "Where it is: REGION/ZONE/SUBZONE.",
    "weight": "Its share of the traffic, in proportion to others.",
    "serviceAccount": "Who it is.",
}

DESCRIPTIONS: Mapping[str, Mapping[str, str]] = {
    "VirtualService": {
        "hosts": "Hosts that requests are for: names (short ones are of services), addresses, wildcards.",
        "gateways": "Gateways at which the routes hold, as NAME or NAMESPACE/NAME; mesh (the default) stands for the sidecars.",
        "exportTo": _EXPORT,
    },
    "HTTPRoute": {
        "name": "The route's name, for access logs.",
        "timeout": "How long the whole answer may take, with all retries; 0s or nothing for as long as it takes.",
        "mirrorPercent": "Deprecated: use mirrorPercentage.",
    },
    "HTTPMatchRequest": {
        "name": "The condition's name, for people.",
        "port": "The port of the host that is called.",
        "sourceLabels": _LABELS,
        "gateways": _GATEWAYS,
        "ignoreUriCase": "Whether upper and lower case are the same in uri (exact and prefix).",
        "sourceNamespace": _NAMESPACE,
        "statPrefix": "Not implemented.",
    },
    "StringMatch": {
        "exact": "The whole text.",
        "prefix": "Its beginning.",
        "regex": "A regular expression of the whole text, in RE2's syntax.",
    },
    "HTTPRouteDestination": {"weight": "Its share of the requests, in proportion to the other weights of the route."},
    "RouteDestination": {"weight": "Its share of the connections, in proportion to the other weights of the route."},
    "Destination": {
        "host": "The service, by its full name, or by a short one within the namespace of this resource.",
        "subset": "A subset of the service, which a DestinationRule defines.",
    },
    "PortSelector": {"number": _PORT},
    "HTTPRedirect": {
        "uri": "The path that takes the place of the request's.",
        "authority": "The host that takes the place of the request's.",
        "port": "The port of the new address.",
        "derivePort": "Where the port of the new address comes from: FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT.",
        "scheme": "http or https.",
        "redirectCode": "301 (the default), 302, 303, 307 or 308.",
    },
    "HTTPDirectResponse": {"status": "The HTTP status of the answer."},
    "HTTPBody": {"string": "The body as text.", "bytes": "The body in base64."},
    "Delegate": {
        "name": "The name of a VirtualService without hosts.",
        "namespace": "Its namespace; that of this resource if nothing is said.",
    },
    "HTTPRewrite": {
        "uri": "What takes the place of the path, or of the prefix that was matched.",
        "authority": "What takes the place of the host.",
    },
    "RegexRewrite": {
        "match": "A regular expression (RE2) of what of the path is replaced.",
        "rewrite": "What stands there instead; \\1 is the first group.",
    },
    "HTTPRetry": {
        "attempts": "How often a request is repeated; 0 for never.",
        "perTryTimeout": "How long each try may take, the first one included.",
        "retryOn": "Upon what a request is repeated: Envoy's conditions and statuses, with commas between them.",
        "retryRemoteLocalities": "Whether tries may go to other localities.",
        "retryIgnorePreviousHosts": "Whether a try may go to an endpoint that was tried before.",
        "backoff": "The least time between tries; it grows from try to try.",
    },
    "Delay": {"percent": "Deprecated: use percentage.", "fixedDelay": "How long requests wait."},
    "Abort": {"httpStatus": "The HTTP status of the answer.", "grpcStatus": "The gRPC status, as UNAVAILABLE."},
    "Percent": {"value": "From 0 to 100."},
    "CorsPolicy": {
        "allowOrigin": "Deprecated: use allowOrigins.",
        "allowMethods": "Methods that pages may use (Access-Control-Allow-Methods).",
        "allowHeaders": "Headers that pages may send (Access-Control-Allow-Headers).",
        "exposeHeaders": "Headers of answers that pages may read (Access-Control-Expose-Headers).",
        "maxAge": "How long browsers may remember this (Access-Control-Max-Age).",
        "allowCredentials": "Whether pages may send cookies and the like.",
        "unmatchedPreflights": "Whether preflights of other origins go to the service (FORWARD) or are answered here (IGNORE).",
    },
    "HeaderOperations": {
        "set": "Headers that take the place of those of the same name.",
        "add": "Headers that are added to those of the same name.",
        "remove": "Names of headers that are removed.",
    },
    "TLSMatchAttributes": {
        "sniHosts": "Server names that clients ask for; wildcards are possible.",
        "destinationSubnets": "Addresses, or ranges of them, that connections are for.",
        "port": "The port of the host that is called.",
        "sourceLabels": _LABELS,
        "gateways": _GATEWAYS,
        "sourceNamespace": _NAMESPACE,
    },
    "L4MatchAttributes": {
        "destinationSubnets": "Addresses, or ranges of them, that connections are for.",
        "port": "The port of the host that is called.",
        "sourceLabels": _LABELS,
        "sourceSubnet": "An address, or a range of them, that connections come from.",
        "gateways": _GATEWAYS,
        "sourceNamespace": _NAMESPACE,
    },
    "DestinationRule": {"host": "The service, or a wildcard for several.", "exportTo": _EXPORT},
    "Subset": {"name": "What routes call it.", "labels": "Labels of the endpoints that are in it."},
    "LoadBalancerSettings": {
        "simple": "How an endpoint is chosen without regard to the request; LEAST_REQUEST if nothing is said.",
        "warmupDurationSecs": "Deprecated: use warmup.",
    },
    "ConsistentHashLB": {
        "httpHeaderName": "The header whose value decides.",
        "useSourceIp": "Whether the client's address decides.",
        "httpQueryParameterName": "The parameter of the query whose value decides.",
        "minimumRingSize": "Deprecated: use ringHash.",
    },
    "HTTPCookie": {
        "name": "The cookie's name.",
        "path": "Its path.",
        "ttl": "How long a cookie that is made here lives; 0s until the browser is closed.",
    },
    "RingHash": {"minimumRingSize": "The least number of points on the ring (1024): more points, more even shares."},
    "MagLev": {"tableSize": "The size of the table (65537), a prime number."},
    "LocalityLbSetting": {
        "failoverPriority": "Labels in the order in which endpoints that share them with the client come first.",
        "enabled": "Whether localities are looked at, whatever the mesh says.",
    },
    "Distribute": {
        "from": "The locality of the clients: REGION/ZONE/SUBZONE, where the end may be * or missing.",
        "to": "Localities and their shares in percent, 100 together.",
    },
    "Failover": {"from": "The region that fails.", "to": "The region that takes over."},
    "WarmupConfiguration": {
        "duration": "How long after it has appeared an endpoint gets less.",
        "minimumPercent": "The share of its full traffic with which it begins (10).",
        "aggression": "How the share grows: 1 (the default) evenly, more first slowly.",
    },
    "TCPSettings": {
        "maxConnections": "The most connections to the service from one proxy.",
        "connectTimeout": "How long a connection may take to open (10s).",
        "maxConnectionDuration": "How long a connection may live.",
        "idleTimeout": "How long a connection may be silent; 0s for ever.",
    },
    "TcpKeepalive": {
        "probes": "Probes without an answer after which a connection is dead.",
        "time": "How long a connection is silent before the first probe.",
        "interval": "The time between probes.",
    },
    "HTTPSettings": {
        "http1MaxPendingRequests": "The most requests that wait for a connection.",
        "http2MaxRequests": "The most requests at a time, of all versions of HTTP.",
        "maxRequestsPerConnection": "Requests after which a connection is closed; 1 switches keep-alive off, 0 is no limit.",
        "maxRetries": "The most retries at a time.",
        "idleTimeout": "How long a connection without requests is kept.",
        "h2UpgradePolicy": "Whether HTTP/1.1 becomes HTTP/2 on the way to the service.",
        "useClientProtocol": "Whether the service is spoken to in the version that the client speaks.",
        "maxConcurrentStreams": "The most requests at a time on one HTTP/2 connection.",
    },
    "OutlierDetection": {
        "consecutiveErrors": "Deprecated: use consecutiveGatewayErrors or consecutive5xxErrors.",
        "splitExternalLocalOriginErrors": "Whether failures on this side of the wire are counted apart.",
        "consecutiveLocalOriginFailures": "How many of these in a row take an endpoint out.",
        "consecutiveGatewayErrors": "How many 502, 503 and 504 in a row take an endpoint out; 0 for no number.",
        "consecutive5xxErrors": "How many 5xx in a row take an endpoint out (5); 0 for no number.",
        "interval": "The time between two looks (10s).",
        "baseEjectionTime": "How long an endpoint is out the first time (30s).",
        "maxEjectionPercent": "The most endpoints that are out at a time, in percent (10).",
        "minHealthPercent": "Below this share of healthy endpoints all are used.",
    },
    "ClientTLSSettings": {
        "mode": "DISABLE, SIMPLE, MUTUAL (with a certificate of one's own) or ISTIO_MUTUAL (with the mesh's).",
        "clientCertificate": _CERTIFICATE,
        "privateKey": _KEY,
        "caCertificates": _ROOTS,
        "caCrl": "A file with a list of revoked certificates.",
        "credentialName": "A Secret with certificate, key and roots, in place of files.",
        "subjectAltNames": "Names of which the server's certificate must have one.",
        "sni": "The server name that is asked for.",
        "insecureSkipVerify": "Whether the server's certificate is not checked.",
    },
    "Gateway": {"selector": "Labels of the proxies that serve this, in any namespace."},
    "Port": {"number": _PORT, "protocol": "HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.", "name": "The port's name."},
    "SidecarPort": {
        "number": _PORT,
        "protocol": "HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.",
        "name": "The port's name.",
    },
    "LabelSelector": {"labels": "Labels that workloads of this namespace must have, all of them."},
    "MatchLabels": {"matchLabels": "Labels that workloads must have, all of them."},
    "Server": {
        "bind": "The address that is listened on; all if nothing is said.",
        "hosts": 'Hosts that are served, as NAME or NAMESPACE/NAME ("." for this namespace), with wildcards.',
        "defaultEndpoint": "Where traffic goes for which there is no route.",
        "name": "The server's name, for people.",
    },
    "ServerTLSSettings": {
        "httpsRedirect": "Whether plain HTTP is answered with a redirect to HTTPS.",
        "mode": "PASSTHROUGH, SIMPLE, MUTUAL, OPTIONAL_MUTUAL, AUTO_PASSTHROUGH or ISTIO_MUTUAL.",
        "serverCertificate": _CERTIFICATE,
        "privateKey": _KEY,
        "caCertificates": _ROOTS,
        "caCrl": "A file with a list of revoked certificates.",
        "credentialName": "A Secret with certificate, key and, for MUTUAL, roots.",
        "credentialNames": "Secrets with certificates of different kinds, RSA and ECDSA.",
        "subjectAltNames": "Names of which a client's certificate must have one.",
        "verifyCertificateSpki": "SHA-256 hashes, in base64, of public keys that clients may have.",
        "verifyCertificateHash": "SHA-256 hashes of certificates that clients may have.",
        "minProtocolVersion": "The oldest version of TLS.",
        "maxProtocolVersion": "The newest version of TLS.",
        "cipherSuites": "Cipher suites for TLS up to 1.2, by OpenSSL's names.",
    },
    "ServiceEntry": {
        "hosts": "Names of the service; wildcards are possible.",
        "addresses": "Addresses of the service itself, or ranges of them, by which TCP is told apart.",
        "location": "Whether it is in the mesh (MESH_INTERNAL) or not (MESH_EXTERNAL, the default).",
        "resolution": "How endpoints are found: NONE (where the client sends), STATIC, DNS, DNS_ROUND_ROBIN.",
        "exportTo": _EXPORT,
        "subjectAltNames": "Names of which the servers' certificates must have one.",
    },
    "ServicePort": {
        "number": _PORT,
        "protocol": "HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS; found out if nothing is said.",
        "name": "The port's name.",
        "targetPort": "The endpoints' port, where it is another one.",
    },
    "WorkloadEntry": _WORKLOAD,
    "WorkloadTemplate": _WORKLOAD,
    "ReadinessProbe": {
        "initialDelaySeconds": "Before the first probe.",
        "timeoutSeconds": "How long a probe may take (1).",
        "periodSeconds": "Between two probes (10).",
        "successThreshold": "How many probes in a row make the workload healthy (1).",
        "failureThreshold": "How many failures in a row make it unhealthy (3).",
    },
    "HTTPHealthCheckConfig": {
        "port": _PORT,
        "path": "The path that is asked for.",
        "host": "The address, if not the workload's.",
    },
    "TCPHealthCheckConfig": {"port": _PORT, "host": "The address, if not the workload's."},
    "IstioEgressListener": {
        "bind": "The address that is listened on: an IP, or unix:///path.",
        "captureMode": "Whether traffic is expected to be captured.",
        "hosts": 'Services that are reached here, as NAMESPACE/HOST: "." for this namespace, "*" for any, "~" for none.',
    },
    "IstioIngressListener": {
        "bind": "The address that is listened on.",
        "captureMode": "Whether traffic is expected to be captured.",
        "defaultEndpoint": "Where the application listens: 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path.",
    },
    "OutboundTrafficPolicy": {
        "mode": "REGISTRY_ONLY refuses hosts that the mesh does not know, ALLOW_ANY lets them pass."
    },
    "EnvoyFilter": {"priority": "The order among EnvoyFilters: the lowest is first."},
    "EnvoyConfigObjectPatch": {"applyTo": "What is patched."},
    "EnvoyConfigObjectMatch": {"context": "ANY, SIDECAR_INBOUND, SIDECAR_OUTBOUND or GATEWAY."},
    "Patch": {
        "operation": "What is done: MERGE, ADD, REMOVE, INSERT_BEFORE, INSERT_AFTER, INSERT_FIRST or REPLACE.",
        "value": "A part of Envoy's configuration, as JSON.",
    },
    "AccessLogging": {"disabled": "Whether nothing is logged."},
    "Filter": {"expression": "A condition in CEL: what is logged."},
    "ProviderRef": {"name": "The provider's name in MeshConfig."},
    "LogSelector": {"mode": _SIDE},
    "TracingSelector": {"mode": _SIDE},
    "MutualTLS": {"mode": "STRICT takes mutual TLS alone, PERMISSIVE plain text too, DISABLE plain text alone."},
    "JWTRule": {
        "issuer": "Who makes the tokens (their claim iss).",
        "audiences": "For whom tokens may be made (their claim aud).",
        "jwksUri": "Where the issuer's keys are.",
        "jwks": "The issuer's keys themselves.",
        "fromParams": "Parameters of the query that have a token.",
        "fromCookies": "Cookies that have a token.",
        "outputPayloadToHeader": "The header that brings the token's payload to the workload.",
        "forwardOriginalToken": "Whether the token goes to the workload.",
        "timeout": "How long fetching the keys may take.",
    },
    "AuthorizationPolicy": {"action": "ALLOW (the default), DENY, AUDIT or CUSTOM."},
    "Source": {
        "principals": "Identities of the calling workload: TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT.",
        "notPrincipals": "Identities that it must not have.",
        "requestPrincipals": "Identities of the request's token: ISSUER/SUBJECT.",
        "notRequestPrincipals": "Identities that the token must not have.",
        "namespaces": "Namespaces of the calling workload.",
        "notNamespaces": "Namespaces that it must not be in.",
        "serviceAccounts": "Service accounts of the calling workload: NAME or NAMESPACE/NAME.",
        "notServiceAccounts": "Service accounts that it must not have.",
        "ipBlocks": "Addresses that connections come from, or ranges of them.",
        "notIpBlocks": "Addresses that connections must not come from.",
        "remoteIpBlocks": "Addresses of the client itself, behind proxies that are trusted.",
        "notRemoteIpBlocks": "Addresses that the client must not have.",
    },
    "Operation": {
        "hosts": "Hosts of requests.",
        "notHosts": "Hosts that requests must not have.",
        "ports": "Ports of the workload, in quotes.",
        "notPorts": "Ports that it must not be.",
        "methods": "Methods of requests.",
        "notMethods": "Methods that requests must not have.",
        "paths": "Paths of requests: whole, with * at one end, or with {*} and {**} for segments.",
        "notPaths": "Paths that requests must not have.",
    },
    "Condition": {
        "key": "An attribute, such as request.headers[NAME] or source.ip.",
        "values": "Values of which it must have one.",
        "notValues": "Values that it must not have.",
    },
}
"""By model and field."""
