"""PROXY headers before upstream connections: seen whole by a raw upstream, and taken in by second listeners of the same proxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    access_log,
    address,
    bootstrap,
    cluster,
    listener,
    listener_filter,
    manager,
    network_filter,
    route,
    say,
    to,
    typed,
)
from tests.differential.case import (
    AwaitBytes,
    AwaitClose,
    AwaitResponses,
    Close,
    Finish,
    ReadUntil,
    Reply,
    Send,
    Table,
    request,
)
from tests.sidecar.transport.serving import SERVER, inline

TRANSPORT = "type.googleapis.com/envoy.extensions.transport_sockets."
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
FAR: Mapping[str, bytes] = {
    "v4": b"PROXY TCP4 10.1.2.3 10.9.9.9 1111 2222\r\n",
    "v6": b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n",
    "unknown": b"PROXY UNKNOWN\r\n",
}
KINDS = ("v1", "v2", "v1-tls", "v2-tls", "v1-h2", "v2-h2", "v2-match")
COUNTED = r"upstream_(cx_total|cx_http1_total|cx_http2_total|cx_connect_fail|cx_active|rq_total)"


def raw_buffer() -> Message:
    return typed("raw", TRANSPORT + "raw_buffer.v3.RawBuffer")


def proxying(version: str, inner: Message | None = None) -> Message:
    """A transport socket that begins with this version."""
    kind = TRANSPORT + "proxy_protocol.v3.ProxyProtocolUpstreamTransport"
    return typed("proxy", kind, config={"version": version.upper()}, transport_socket=inner or raw_buffer())


def upstream_proxy_protocol(site: Site) -> Message:
    seen = [
        {"header": {"key": f"x-{name}", "value": f"%DOWNSTREAM_{word}_ADDRESS{end}%"}}
        for name, word in (("source", "REMOTE"), ("destination", "LOCAL"))
        for end in ("_WITHOUT_PORT",)
    ]
    ports = [
        {"header": {"key": f"x-{name}", "value": f"%DOWNSTREAM_{word}_ADDRESS%"}}
        for name, word in (("source", "REMOTE"), ("destination", "LOCAL"))
    ]
    echo = manager(
        site,
        [
            route("/full/", say(200), response_headers_to_add=ports),
            route("/", say(200), response_headers_to_add=seen),
        ],
        access_log=[],
    )
    reads = {"listener_filters": [listener_filter("proxy_protocol", "ProxyProtocol")]}
    server = typed(
        "tls", TRANSPORT + "tls.v3.DownstreamTlsContext", common_tls_context={"tls_certificates": [inline(SERVER)]}
    )
    client = typed("tls", TRANSPORT + "tls.v3.UpstreamTlsContext", sni="server.example")
    secured = [{"filters": [echo], "transport_socket": server}]
    listeners = [
        listener(site, "echo", echo, **reads),
        listener(site, "echo-tls", filter_chains=secured, **reads),
    ]
    clusters, routes = [], []
    for kind in KINDS:
        version, _, how = kind.partition("-")
        where = address(site.take("echo-tls" if how == "tls" else "echo"))
        assignment = {"cluster_name": kind, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}]}
        socket = proxying(version, client if how == "tls" else None)
        fields: dict[str, Any] = {"transport_socket": socket}
        if how == "match":
            fields = {"transport_socket_matches": [{"name": "all", "match": {}, "transport_socket": socket}]}
        if how == "h2":
            fields["typed_extension_protocol_options"] = HTTP2
        clusters.append(cluster(site, kind, load_assignment=assignment, **fields))
        routes += [route(f"/{full}{kind}/", to(kind, prefix_rewrite=f"/{full}")) for full in ("", "full/")]
    for version in ("v1", "v2"):
        clusters.append(cluster(site, f"tcp-{version}", ["tcp"], transport_socket=proxying(version)))
        checks = {
            "timeout": "1s", "interval": "60s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "http_health_check": {"path": "/full/"},
        }  # fmt: skip
        where = address(site.take("echo"))
        assignment = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}]}
        clusters.append(
            cluster(
                site, f"checked-{version}", load_assignment=assignment, health_checks=[checks],
                transport_socket=proxying(version),
            )
        )  # fmt: skip
        routes.append(route(f"/checked-{version}/", to(f"checked-{version}", prefix_rewrite="/")))
    outer = manager(site, routes, access_log=[access_log(site)])
    listeners += [listener(site, "http", outer), listener(site, "proxied-http", outer, **reads)]
    for name in ("tcp-v1", "tcp-v2", "v2-tls"):
        tcp = network_filter("tcp_proxy", "TcpProxy", stat_prefix="tcp", cluster=name)
        listeners.append(listener(site, f"to-{name}", tcp, **reads))
    return bootstrap(site, listeners, clusters)


BOOTSTRAPS = {"upstream-proxy-protocol": upstream_proxy_protocol}
table = Table("upstream-proxy-protocol", "upstream-proxy-protocol")
CASES = table.cases
for _kind in KINDS:
    table.get(_kind, f"/{_kind}/")
    for _far, _header in FAR.items():
        table.add(
            f"{_kind}-from-{_far}",
            Send(_header + request("GET", f"/full/{_kind}/" if _far != "unknown" else f"/{_kind}/")),
            methods=["GET"],
            listener="proxied-http",
        )
    # Two requests of one connection share an upstream one, which nobody else gets.
    table.add(
        f"{_kind}-by-connection",
        *(
            step
            for number, connection in enumerate((0, 0, 1, 1))
            for step in (
                Send(request("GET", f"/{_kind}/"), connection),
                AwaitResponses(number % 2 + 1, connection),
            )
        ),
    )
    table.get(f"{_kind}-counted", f"/stats?filter=cluster.{_kind}.{COUNTED}$", listener="admin", access_log=False)
BYE = Reply((ReadUntil(b"hello"), b"bye", Close()))
for _version in ("v1", "v2"):
    for _far, _header in FAR.items():
        if _far != "unknown":  # ports by chance
            table.raw(
                f"tcp-{_version}-from-{_far}",
                Send(_header + b"hello"),
                AwaitBytes(b"bye"),
                AwaitClose(),
                listener=f"to-tcp-{_version}",
                upstream=BYE,
                upstream_requests=1,
            )
    # A server that speaks first has the header before the client has said a word.
    table.raw(
        f"tcp-{_version}-server-first",
        Send(FAR["v4"]),
        AwaitBytes(b"welcome"),
        AwaitClose(),
        listener=f"to-tcp-{_version}",
        upstream=Reply((ReadUntil(b"\n"), b"welcome", Close())),
        upstream_requests=1,
    )
    table.get(f"checked-{_version}", f"/checked-{_version}/")
    table.get(
        f"checked-{_version}-counted",
        f"/stats?filter=cluster.checked-{_version}.(health_check.(success|failure|attempt)|membership_healthy)$",
        listener="admin",
        access_log=False,
    )
    table.get(
        f"tcp-{_version}-counted",
        f"/stats?filter=cluster.tcp-{_version}.upstream_cx_(total|tx_bytes_total|rx_bytes_total)$",
        listener="admin",
        access_log=False,
    )
table.raw(
    "tcp-through-tls",
    Send(FAR["v4"] + request("GET", "/full/")),
    AwaitBytes(b"x-destination: 10.9.9.9:2222"),
    Finish(),
    AwaitClose(),
    listener="to-v2-tls",
)
