"""Network filters and listener filters: raw TCP through the proxy, and what is learned from its first bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    cluster,
    listener,
    listener_filter,
    manager,
    network_filter,
    route,
    say,
)
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitClose,
    AwaitUpstream,
    Close,
    Delay,
    Finish,
    Pause,
    ReadUntil,
    Reply,
    Reset,
    Send,
    Step,
    Table,
    Tunnel,
    request,
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
        listener(site, "unknown", tcp_proxy(site, "nowhere")),
        listener(site, "idle", tcp_proxy(site, idle_timeout="0.1s")),
        listener(site, "max-duration", tcp_proxy(site, max_downstream_connection_duration="0.1s")),
        listener(site, "weighted", tcp_proxy(site, weighted_clusters=weighted)),
        listener(site, "full", tcp_proxy(site, "full")),
        listener(site, "said", said("direct")),
        listener(site, "said-nothing", network_filter("direct_response", "Config")),
        listener(site, "sni", network_filter("sni_cluster", "SniCluster"), tcp_proxy(site), listener_filters=[listener_filter("tls_inspector", "TlsInspector")]),
    ]  # fmt: skip
    full = cluster(site, "full", ["tcp"], circuit_breakers={"thresholds": [{"max_connections": 0, "max_pending_requests": 0}]})
    return bootstrap(site, listeners, [cluster(site, "tcp"), cluster(site, "sni.test", ["tcp2"]), full])


def network_rbac(site: Site) -> Message:
    def rules(action: str, principal: Message, permission: Message | None = None) -> Message:
        return {"action": action, "policies": {"p": {"permissions": [permission or {"any": True}], "principals": [principal]}}}

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
    delayed = network_filter("connection_limit", "ConnectionLimit", stat_prefix="delayed", max_connections=1, delay="0.1s")
    off = network_filter(
        "connection_limit", "ConnectionLimit", stat_prefix="off", max_connections=1, runtime_enabled={"default_value": False, "runtime_key": "x"}
    )
    listeners = [
        listener(site, "limited", limit(**bucket), said("passed")),
        listener(site, "limit-off", limit(**bucket, runtime_enabled={"default_value": False, "runtime_key": "x"}), said("passed")),
        listener(site, "connections", connections, tcp_proxy(site)),
        listener(site, "connections-delayed", delayed, tcp_proxy(site)),
        listener(site, "connections-off", off, tcp_proxy(site)),
    ]
    return bootstrap(site, listeners, [cluster(site, "tcp")])


def inspected(site: Site) -> Message:
    """Filter chains chosen by what the listener filters learned; each says its name."""

    def chain(name: str, **match: Any) -> Message:
        return {"name": name, "filters": [said(name)], **({"filter_chain_match": match} if match else {})}

    def manager_chain(name: str, **match: Any) -> Message:
        chosen = manager(site, [route("/", say(200, name))])
        return {"name": name, "filters": [chosen], **({"filter_chain_match": match} if match else {})}

    tls = [
        chain("exact", server_names=["exact.test"], transport_protocol="tls"),
        chain("suffix", server_names=["*.suffix.test"], transport_protocol="tls"),
        chain("longer-suffix", server_names=["*.longer.suffix.test"], transport_protocol="tls"),
        chain("h2", application_protocols=["h2"], transport_protocol="tls"),
        chain("tls", transport_protocol="tls"),
        chain("raw", transport_protocol="raw_buffer"),
    ]
    http = [manager_chain("http1", application_protocols=["http/1.1"]), manager_chain("http10", application_protocols=["http/1.0"]), chain("h2c", application_protocols=["h2c"]), chain("other")]  # fmt: skip
    here = {"address_prefix": "127.0.0.1", "prefix_len": 32}
    near = {"address_prefix": "127.0.0.0", "prefix_len": 8}
    far = {"address_prefix": "10.0.0.0", "prefix_len": 8}
    sources = [
        chain("far", source_prefix_ranges=[far]),
        chain("near", source_prefix_ranges=[near]),
        chain("here", source_prefix_ranges=[here]),
        chain("any"),
    ]
    destinations = [
        chain("other-port", destination_port=1),
        chain("far", prefix_ranges=[far]),
        chain("here", prefix_ranges=[here]),
        chain("near", prefix_ranges=[near]),
    ]
    types = [chain("external", source_type="EXTERNAL"), chain("local", source_type="SAME_IP_OR_LOOPBACK")]
    inspect_tls = [listener_filter("tls_inspector", "TlsInspector")]
    inspect_http = [listener_filter("http_inspector", "HttpInspector")]
    by_address = network_filter("rbac", "RBAC", stat_prefix="proxied", rules={"policies": {"p": {"permissions": [{"any": True}], "principals": [{"remote_ip": far}]}}})  # fmt: skip

    def proxy_protocol(**fields: Any) -> list[Message]:
        return [listener_filter("proxy_protocol", "ProxyProtocol", **fields)]

    http_behind = manager(site, use_remote_address=True, access_log=[access_log(site, LOGGED | {"remote": "%DOWNSTREAM_REMOTE_ADDRESS%", "local": "%DOWNSTREAM_LOCAL_ADDRESS%"})])  # fmt: skip
    listeners = [
        listener(site, "tls", filter_chains=tls, listener_filters=inspect_tls),
        listener(site, "tls-default", filter_chains=tls[:1], default_filter_chain=chain("default"), listener_filters=inspect_tls),
        listener(site, "tls-none", filter_chains=tls[:1], listener_filters=inspect_tls),
        listener(site, "http-inspected", filter_chains=http, listener_filters=inspect_http),
        listener(site, "sources", filter_chains=sources),
        listener(site, "destinations", filter_chains=destinations),
        listener(site, "types", filter_chains=types),
        listener(site, "proxied", by_address, said("far"), listener_filters=proxy_protocol()),
        listener(site, "proxied-http", http_behind, listener_filters=proxy_protocol()),
        listener(site, "proxied-or-not", http_behind, listener_filters=proxy_protocol(allow_requests_without_proxy_protocol=True)),
        listener(site, "inspect-timeout", filter_chains=tls, listener_filters=inspect_tls, listener_filters_timeout="0.1s"),
        listener(site, "inspect-go-on", filter_chains=tls, listener_filters=inspect_tls, listener_filters_timeout="0.1s", continue_on_listener_filters_timeout=True),
    ]  # fmt: skip
    return bootstrap(site, listeners)


BOOTSTRAPS = {"tcp": tcp, "network-rbac": network_rbac, "network-limits": network_limits, "inspected": inspected}

table = Table("network", "tcp")
CASES = table.cases
ECHO = Reply((Tunnel(),))


def raw(name: str, *steps: Step | bytes, listener: str = "tcp", **options: Any) -> None:
    """A case without HTTP on the client's side."""
    table.add(name, *steps, methods={}, listener=listener, **options)


HELLO = Send(b"hello")
raw("echo", HELLO, AwaitBytes(b"HELLO"), Finish(), AwaitClose(), upstream=ECHO, upstream_requests=1)
raw("client-finishes-first", HELLO, Finish(), AwaitClose(), upstream=Reply((ReadUntil(b"hello"), b"late", Delay(0.03), b" reply", Close())), upstream_requests=1)  # fmt: skip
raw("upstream-speaks-first", AwaitBytes(b"welcome"), HELLO, AwaitBytes(b"HELLO"), upstream=Reply((b"welcome", Tunnel())), upstream_requests=1)
raw("upstream-closes", HELLO, AwaitClose(), upstream=Reply((ReadUntil(b"hello"), b"bye", Close())), upstream_requests=1)
raw("upstream-resets", HELLO, AwaitClose(), upstream=Reply((ReadUntil(b"hello"), Reset())), upstream_requests=1)
raw("client-resets", HELLO, AwaitBytes(b"HELLO"), Abort(), upstream=ECHO, upstream_requests=1)
raw("large", Send(b"abcdefghij" * 50_000), Finish(), AwaitClose(), upstream=ECHO, upstream_requests=1)
raw("nothing-sent", Send(b""), AwaitUpstream(1), Finish(), upstream=ECHO, upstream_requests=1)
for _listener in ("refused", "refused-thrice", "empty", "unknown", "full"):
    raw(_listener, HELLO, AwaitClose(), listener=_listener)
raw("idle", HELLO, AwaitBytes(b"HELLO"), AwaitClose(), listener="idle", upstream=ECHO, upstream_requests=1)
raw("max-duration", HELLO, AwaitClose(), listener="max-duration", upstream=ECHO, upstream_requests=1)
raw("weighted", HELLO, AwaitBytes(b"HELLO"), listener="weighted", upstream=ECHO, upstream_requests=1)
raw("direct-response", Send(b""), AwaitClose(), listener="said")
raw("direct-response-after-data", HELLO, AwaitClose(), listener="said", access_log=False)
raw("direct-response-empty", Send(b""), AwaitClose(), listener="said-nothing")

on = {"bootstrap": "network-rbac"}
for _listener in ("allowed", "not-allowed", "denied", "not-denied", "logged", "shadow", "continuous", "port", "delayed"):
    raw(f"rbac-{_listener}", HELLO, AwaitClose(), listener=_listener, deadline=0.4, **on)

on = {"bootstrap": "network-limits"}
raw("limited", HELLO, AwaitClose(), Send(b"again", 1), AwaitClose(1), listener="limited", **on)
raw("limit-off", HELLO, AwaitClose(), Send(b"again", 1), AwaitClose(1), listener="limit-off", **on)
for _listener in ("connections", "connections-delayed"):
    raw(f"limit-{_listener}", HELLO, AwaitBytes(b"HELLO"), Send(b"more", 1), AwaitClose(1), listener=_listener, upstream=ECHO, upstream_requests=1, **on)  # fmt: skip
raw("limit-connections-again", HELLO, AwaitBytes(b"HELLO"), listener="connections", upstream=ECHO, upstream_requests=1, **on)
raw("limit-connections-off", HELLO, AwaitBytes(b"HELLO"), Send(b"more", 1), AwaitBytes(b"MORE", 1), listener="connections-off", upstream=ECHO, upstream_requests=2, unordered=True, **on)  # fmt: skip

on = {"bootstrap": "inspected"}


def client_hello(name: str = "", *protocols: str) -> bytes:
    """A TLS 1.2 ClientHello with a server name and application protocols."""
    extensions = b""
    if name:
        entry = b"\x00" + struct.pack("!H", len(name)) + name.encode()
        extensions += struct.pack("!HHH", 0, len(entry) + 2, len(entry)) + entry
    if protocols:
        listed = b"".join(bytes([len(one)]) + one.encode() for one in protocols)
        extensions += struct.pack("!HHH", 16, len(listed) + 2, len(listed)) + listed
    extensions += struct.pack("!HHHH", 13, 4, 2, 0x0804)
    body = b"\x03\x03" + bytes(32) + b"\x00" + struct.pack("!H", 2) + b"\x13\x01" + b"\x01\x00" + struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(handshake)) + handshake


for _name, _hello in (
    ("exact", client_hello("exact.test")),
    ("exact-capitals", client_hello("EXACT.test")),
    ("suffix", client_hello("x.suffix.test")),
    ("suffix-itself", client_hello("suffix.test")),
    ("longer-suffix", client_hello("a.b.longer.suffix.test")),
    ("alpn", client_hello("other.test", "h2", "http/1.1")),
    ("alpn-and-name", client_hello("exact.test", "h2")),
    ("no-name", client_hello()),
    ("not-tls", b"hello, this is not TLS"),
):
    for _listener in ("tls", "tls-default", "tls-none"):
        raw(f"{_listener}-{_name}", _hello, AwaitClose(), listener=_listener, access_log=False, **on)
raw("tls-hello-in-pieces", Send(client_hello("exact.test")[:20]), Pause(0.02), Send(client_hello("exact.test")[20:]), AwaitClose(), listener="tls", access_log=False, **on)  # fmt: skip
raw("tls-half-a-hello", Send(client_hello("exact.test")[:20]), AwaitClose(), listener="inspect-timeout", access_log=False, **on)
raw("tls-half-a-hello-goes-on", Send(client_hello("exact.test")[:20]), AwaitClose(), listener="inspect-go-on", access_log=False, **on)
raw("tls-nothing-goes-on", Send(b""), AwaitClose(), listener="inspect-go-on", access_log=False, **on)
raw("sni-cluster", Send(client_hello("sni.test")), AwaitUpstream(1), listener="sni", upstream=Reply((ReadUntil(b"sni.test"), b"seen", Close())), upstream_requests=1, access_log=False)  # fmt: skip
raw("sni-cluster-unknown", Send(client_hello("nowhere.test")), AwaitClose(), listener="sni")
raw("sni-cluster-none", Send(b"plain bytes, no hello at all"), AwaitUpstream(1), listener="sni", upstream=Reply((ReadUntil(b"all"), b"seen", Close())), upstream_requests=1)  # fmt: skip
for _name, _data in (
    ("1.1", request("GET", "/")),
    ("1.0", b"GET / HTTP/1.0\r\n\r\n"),
    ("h2c", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("not-http", b"hello there\r\n\r\n"),
    ("bad-version", b"GET / HTTP/9.9\r\n\r\n"),
    ("unknown-method", b"BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
):
    _methods = {} if _name in ("h2c", "not-http") else ["GET"]
    table.add(f"http-inspected-{_name}", _data, methods=_methods, listener="http-inspected", deadline=0.5, access_log=False, **on)
for _listener in ("sources", "destinations", "types"):
    raw(f"chain-{_listener}", Send(b""), AwaitClose(), listener=_listener, access_log=False, **on)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses)) + addresses


FOUR = socket.inet_aton("10.1.2.3") + socket.inet_aton("10.9.9.9") + struct.pack("!HH", 1111, 2222)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2") + struct.pack("!HH", 1111, 2222)
for _name, _head in (
    ("v1", b"PROXY TCP4 10.1.2.3 10.9.9.9 1111 2222\r\n"),
    ("v1-six", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n"),
    ("v1-unknown", b"PROXY UNKNOWN\r\n"),
    ("v1-unknown-with-more", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"),
    ("v1-bad-address", b"PROXY TCP4 10.1.2 10.9.9.9 1111 2222\r\n"),
    ("v1-bad-port", b"PROXY TCP4 10.1.2.3 10.9.9.9 99999 2222\r\n"),
    ("v1-missing-port", b"PROXY TCP4 10.1.2.3 10.9.9.9 1111\r\n"),
    ("v1-too-long", b"PROXY TCP4 " + b"1" * 120 + b"\r\n"),
    ("v1-wrong-family", b"PROXY TCP4 2001:db8::1 2001:db8::2 1111 2222\r\n"),
    ("v1-lower-case", b"proxy TCP4 10.1.2.3 10.9.9.9 1111 2222\r\n"),
    ("v1-two-spaces", b"PROXY  TCP4 10.1.2.3 10.9.9.9 1111 2222\r\n"),
    ("v2", v2(1, 0x11, FOUR)),
    ("v2-six", v2(1, 0x21, SIX)),
    ("v2-local", v2(0, 0x00, b"")),
    ("v2-with-tlv", v2(1, 0x11, FOUR + b"\x02\x00\x06a.test")),
    ("v2-short", v2(1, 0x11, FOUR[:6])),
    ("v2-bad-version", SIGNATURE + b"\x11\x11\x00\x0c" + FOUR),
    ("v2-bad-command", v2(5, 0x11, FOUR)),
    ("v2-datagram", v2(1, 0x12, FOUR)),
    ("v2-unspecified", v2(1, 0x00, b"")),
    ("none", b""),
):
    raw(f"proxied-{_name}", Send(_head + b"x"), AwaitClose(), listener="proxied", access_log=False, deadline=0.4, **on)
    for _listener in ("proxied-http", "proxied-or-not"):
        table.add(f"{_listener}-{_name}", Send(_head + request("GET", "/")), methods=["GET"], listener=_listener, deadline=0.4, **on)
table.add("proxied-http-in-pieces", Send(b"PROXY TCP4 10.1.2.3 "), Pause(0.02), Send(b"10.9.9.9 1111 2222\r\nGET / HT"), Pause(0.02), Send(b"TP/1.1\r\nHost: a.test\r\n\r\n"), methods=["GET"], listener="proxied-http", **on)  # fmt: skip
