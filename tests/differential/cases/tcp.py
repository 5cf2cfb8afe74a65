"""Network filters: raw TCP through the proxy, refused, limited and answered."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    access_log,
    bootstrap,
    cluster,
    listener,
    listener_filter,
    network_filter,
)
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitClose,
    AwaitUpstream,
    Close,
    Delay,
    Finish,
    ReadUntil,
    Reply,
    Reset,
    Send,
    Table,
    Tunnel,
)


def tcp_proxy(site: Site, cluster_name: str = "tcp", **fields: Any) -> Message:
    target = {} if "weighted_clusters" in fields else {"cluster": cluster_name}
    return network_filter("tcp_proxy", "TcpProxy", stat_prefix="tcp", access_log=[access_log(site)], **target, **fields)


def said(text: str) -> Message:
    return network_filter("direct_response", "Config", response={"inline_string": text})


def tcp(site: Site) -> Message:
    weighted = {"clusters": [{"name": "tcp", "weight": 1}]}
    listeners = [
        listener(site, "tcp", tcp_proxy(site)),
        listener(site, "refused", tcp_proxy(site, "refused")),
        listener(site, "refused-thrice", tcp_proxy(site, "refused", max_connect_attempts=3)),
        listener(site, "empty", tcp_proxy(site, "empty")),
        listener(site, "idle", tcp_proxy(site, idle_timeout="0.1s")),
        listener(site, "max-duration", tcp_proxy(site, max_downstream_connection_duration="0.3s")),
        listener(site, "weighted", tcp_proxy(site, weighted_clusters=weighted)),
        listener(site, "full", tcp_proxy(site, "full")),
        listener(site, "said", said("direct")),
        listener(site, "said-nothing", network_filter("direct_response", "Config")),
        listener(
            site,
            "sni",
            network_filter("sni_cluster", "SniCluster"),
            tcp_proxy(site),
            listener_filters=[listener_filter("tls_inspector", "TlsInspector")],
        ),
    ]
    full = cluster(
        site, "full", ["tcp"], circuit_breakers={"thresholds": [{"max_connections": 0, "max_pending_requests": 0}]}
    )
    return bootstrap(site, listeners, [cluster(site, "tcp"), cluster(site, "sni.test", ["tcp2"]), full])


def network_rbac(site: Site) -> Message:
    def rules(action: str, principal: Message, permission: Message | None = None) -> Message:
        return {
            "action": action,
            "policies": {"p": {"permissions": [permission or {"any": True}], "principals": [principal]}},
        }

    def rbac(**fields: Any) -> Message:
        return network_filter("rbac", "RBAC", stat_prefix="rbac", **fields)

    loopback = {"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}
    other = {"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}
    filters = {
        "allowed": rbac(rules=rules("ALLOW", loopback)),
        "not-allowed": rbac(rules=rules("ALLOW", other)),
        "denied": rbac(rules=rules("DENY", loopback)),
        "not-denied": rbac(rules=rules("DENY", other)),
        "logged": rbac(rules=rules("LOG", loopback)),
        "shadow": rbac(shadow_rules=rules("DENY", loopback)),
        "continuous": rbac(rules=rules("DENY", loopback), enforcement_type="CONTINUOUS"),
        "port": rbac(rules=rules("ALLOW", {"any": True}, {"destination_port": 1})),
        "delayed": rbac(rules=rules("DENY", loopback), delay_deny="0.1s"),
    }
    return bootstrap(site, [listener(site, name, one, said(name)) for name, one in filters.items()])


def network_limits(site: Site) -> Message:
    def limit(**fields: Any) -> Message:
        return network_filter("local_ratelimit", "LocalRateLimit", stat_prefix="limit", **fields)

    bucket = {"token_bucket": {"max_tokens": 1, "fill_interval": "3600s"}}
    connections = network_filter("connection_limit", "ConnectionLimit", stat_prefix="connections", max_connections=1)
    delayed = network_filter(
        "connection_limit", "ConnectionLimit", stat_prefix="delayed", max_connections=1, delay="0.1s"
    )
    off = network_filter(
        "connection_limit",
        "ConnectionLimit",
        stat_prefix="off",
        max_connections=1,
        runtime_enabled={"default_value": False, "runtime_key": "x"},
    )
    listeners = [
        listener(site, "limited", limit(**bucket), said("passed")),
        listener(
            site,
            "limit-off",
            limit(**bucket, runtime_enabled={"default_value": False, "runtime_key": "x"}),
            said("passed"),
        ),
        listener(site, "connections", connections, tcp_proxy(site)),
        listener(site, "connections-delayed", delayed, tcp_proxy(site)),
        listener(site, "connections-off", off, tcp_proxy(site)),
    ]
    return bootstrap(site, listeners, [cluster(site, "tcp")])


BOOTSTRAPS = {"tcp": tcp, "network-rbac": network_rbac, "network-limits": network_limits}

table = Table("network", "tcp")
CASES = table.cases
raw = table.raw
ECHO = Reply((Tunnel(),))
HELLO = Send(b"hello")
raw("echo", HELLO, AwaitBytes(b"HELLO"), Finish(), AwaitClose(), upstream=ECHO, upstream_requests=1)
raw(
    "client-finishes-first",
    HELLO,
    Finish(),
    AwaitClose(),
    upstream=Reply((ReadUntil(b"hello"), b"late", Delay(0.03), b" reply", Close())),
    upstream_requests=1,
)
raw(
    "upstream-speaks-first",
    AwaitBytes(b"welcome"),
    HELLO,
    AwaitBytes(b"HELLO"),
    upstream=Reply((b"welcome", Tunnel())),
    upstream_requests=1,
)
raw("upstream-closes", HELLO, AwaitClose(), upstream=Reply((ReadUntil(b"hello"), b"bye", Close())), upstream_requests=1)
raw("upstream-resets", HELLO, AwaitClose(), upstream=Reply((ReadUntil(b"hello"), Reset())), upstream_requests=1)
raw("client-resets", HELLO, AwaitBytes(b"HELLO"), Abort(), upstream=ECHO, upstream_requests=1)
raw("large", Send(b"abcdefghij" * 50_000), Finish(), AwaitClose(), upstream=ECHO, upstream_requests=1)
raw("nothing-sent", Send(b""), AwaitUpstream(1), Finish(), upstream=ECHO, upstream_requests=1)
for _listener in ("refused", "refused-thrice", "empty", "full"):
    raw(_listener, HELLO, AwaitClose(), listener=_listener)
raw("idle", HELLO, AwaitBytes(b"HELLO"), AwaitClose(), listener="idle", upstream=ECHO, upstream_requests=1)
raw(
    "max-duration",
    HELLO,
    AwaitBytes(b"HELLO"),
    AwaitClose(),
    listener="max-duration",
    upstream=ECHO,
    upstream_requests=1,
)
raw("weighted", HELLO, AwaitBytes(b"HELLO"), listener="weighted", upstream=ECHO, upstream_requests=1)
raw("direct-response", Send(b""), AwaitClose(), listener="said")
raw("direct-response-after-data", HELLO, AwaitClose(), listener="said", access_log=False)
raw("direct-response-empty", Send(b""), AwaitClose(), listener="said-nothing")

on: dict[str, Any] = {"bootstrap": "network-rbac"}
for _listener in (
    "allowed",
    "not-allowed",
    "denied",
    "not-denied",
    "logged",
    "shadow",
    "continuous",
    "port",
    "delayed",
):
    raw(f"rbac-{_listener}", HELLO, AwaitClose(), listener=_listener, deadline=0.4, **on)

on = {"bootstrap": "network-limits"}
raw("limited", HELLO, AwaitClose(), Send(b"again", 1), AwaitClose(1), listener="limited", **on)
raw("limit-off", HELLO, AwaitClose(), Send(b"again", 1), AwaitClose(1), listener="limit-off", **on)
for _listener in ("connections", "connections-delayed"):
    raw(
        f"limit-{_listener}",
        HELLO,
        AwaitBytes(b"HELLO"),
        Send(b"more", 1),
        AwaitClose(1),
        listener=_listener,
        upstream=ECHO,
        upstream_requests=1,
        **on,
    )
raw(
    "limit-connections-again",
    HELLO,
    AwaitBytes(b"HELLO"),
    listener="connections",
    upstream=ECHO,
    upstream_requests=1,
    **on,
)
raw(
    "limit-connections-off",
    HELLO,
    AwaitBytes(b"HELLO"),
    Send(b"more", 1),
    AwaitBytes(b"MORE", 1),
    listener="connections-off",
    upstream=ECHO,
    upstream_requests=2,
    unordered=True,
    **on,
)
