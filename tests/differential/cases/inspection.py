"""Listener filters and filter chains: what is learned from the first bytes, and what is chosen by it."""

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
    listener,
    listener_filter,
    manager,
    network_filter,
    route,
    say,
)
from tests.differential.case import (
    AwaitClose,
    AwaitUpstream,
    Close,
    Pause,
    ReadUntil,
    Reply,
    Send,
    Table,
    request,
)


def said(text: str) -> Message:
    return network_filter("direct_response", "Config", response={"inline_string": text})


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
    http = [
        manager_chain("http1", application_protocols=["http/1.1"]),
        manager_chain("http10", application_protocols=["http/1.0"]),
        chain("h2c", application_protocols=["h2c"]),
        chain("other"),
    ]
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
    by_address = network_filter(
        "rbac",
        "RBAC",
        stat_prefix="proxied",
        rules={"policies": {"p": {"permissions": [{"any": True}], "principals": [{"remote_ip": far}]}}},
    )

    def proxy_protocol(**fields: Any) -> list[Message]:
        return [listener_filter("proxy_protocol", "ProxyProtocol", **fields)]

    http_behind = manager(
        site,
        use_remote_address=True,
        access_log=[
            access_log(site, LOGGED | {"remote": "%DOWNSTREAM_REMOTE_ADDRESS%", "local": "%DOWNSTREAM_LOCAL_ADDRESS%"})
        ],
    )
    listeners = [
        listener(site, "tls", filter_chains=tls, listener_filters=inspect_tls),
        listener(
            site,
            "tls-default",
            filter_chains=tls[:1],
            default_filter_chain=chain("default"),
            listener_filters=inspect_tls,
        ),
        listener(site, "tls-none", filter_chains=tls[:1], listener_filters=inspect_tls),
        listener(site, "http-inspected", filter_chains=http, listener_filters=inspect_http),
        listener(site, "sources", filter_chains=sources),
        listener(site, "destinations", filter_chains=destinations),
        listener(site, "types", filter_chains=types),
        listener(site, "proxied", by_address, said("far"), listener_filters=proxy_protocol()),
        listener(site, "proxied-http", http_behind, listener_filters=proxy_protocol()),
        listener(
            site,
            "proxied-or-not",
            http_behind,
            listener_filters=proxy_protocol(allow_requests_without_proxy_protocol=True),
        ),
        listener(
            site, "inspect-timeout", filter_chains=tls, listener_filters=inspect_tls, listener_filters_timeout="0.1s"
        ),
        listener(
            site,
            "inspect-go-on",
            filter_chains=tls,
            listener_filters=inspect_tls,
            listener_filters_timeout="0.1s",
            continue_on_listener_filters_timeout=True,
        ),
    ]
    return bootstrap(site, listeners)


BOOTSTRAPS = {"inspected": inspected}

table = Table("network", "inspected")
CASES = table.cases
raw = table.raw
on: dict[str, Any] = {"bootstrap": "inspected"}


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
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\x00"
        + struct.pack("!H", 2)
        + b"\x13\x01"
        + b"\x01\x00"
        + struct.pack("!H", len(extensions))
        + extensions
    )
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
raw(
    "tls-hello-in-pieces",
    Send(client_hello("exact.test")[:20]),
    Pause(0.02),
    Send(client_hello("exact.test")[20:]),
    AwaitClose(),
    listener="tls",
    access_log=False,
    **on,
)
raw(
    "tls-half-a-hello",
    Send(client_hello("exact.test")[:20]),
    AwaitClose(),
    listener="inspect-timeout",
    access_log=False,
    **on,
)
raw(
    "tls-half-a-hello-goes-on",
    Send(client_hello("exact.test")[:20]),
    AwaitClose(),
    listener="inspect-go-on",
    access_log=False,
    **on,
)
raw("tls-nothing-goes-on", Send(b""), AwaitClose(), listener="inspect-go-on", access_log=False, **on)
raw(
    "sni-cluster",
    Send(client_hello("sni.test")),
    AwaitUpstream(1),
    listener="sni",
    bootstrap="tcp",
    upstream=Reply((ReadUntil(b"sni.test"), b"seen", Close())),
    upstream_requests=1,
    access_log=False,
)
raw("sni-cluster-unknown", Send(client_hello("nowhere.test")), AwaitClose(), listener="sni", bootstrap="tcp")
raw(
    "sni-cluster-none",
    Send(b"plain bytes, no hello at all"),
    AwaitUpstream(1),
    listener="sni",
    bootstrap="tcp",
    upstream=Reply((ReadUntil(b"all"), b"seen", Close())),
    upstream_requests=1,
)
for _name, _data in (
    ("1.1", request("GET", "/")),
    ("1.0", b"GET / HTTP/1.0\r\n\r\n"),
    ("h2c", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("not-http", b"hello there\r\n\r\n"),
    ("bad-version", b"GET / HTTP/9.9\r\n\r\n"),
    ("unknown-method", b"BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
):
    _methods = [] if _name in ("h2c", "not-http") else ["GET"]
    table.add(
        f"http-inspected-{_name}",
        _data,
        methods=_methods,
        listener="http-inspected",
        deadline=0.5,
        access_log=False,
        **on,
    )
for _listener in ("sources", "destinations", "types"):
    raw(f"chain-{_listener}", Send(b""), AwaitClose(), listener=_listener, access_log=False, **on)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses)) + addresses


FOUR = socket.inet_aton("10.1.2.3") + socket.inet_aton("10.9.9.9") + struct.pack("!HH", 1111, 2222)
SIX = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 1111, 2222)
)
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
        table.add(
            f"{_listener}-{_name}",
            Send(_head + request("GET", "/")),
            methods=["GET"],
            listener=_listener,
            deadline=0.4,
            **on,
        )
table.add(
    "proxied-http-in-pieces",
    Send(b"PROXY TCP4 10.1.2.3 "),
    Pause(0.02),
    Send(b"10.9.9.9 1111 2222\r\nGET / HT"),
    Pause(0.02),
    Send(b"TP/1.1\r\nHost: a.test\r\n\r\n"),
    methods=["GET"],
    listener="proxied-http",
    **on,
)
