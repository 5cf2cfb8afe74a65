"""The filters for gRPC: statistics by method, gRPC-Web, and the bridge for HTTP/1.1; at the end, what they counted."""

from __future__ import annotations

from base64 import b64encode

from tests.differential.blocks import (
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    route,
    say,
    to,
)
from tests.differential.case import Header, Reply, Table, reply, request
from tests.differential.cases.grpc_logs import with_trailers

GRPC = ("Content-Type", "application/grpc")
METHOD = "/pkg.v1.Service/Method"
ONE, TWO = b"\0\0\0\0\1x", b"\0\0\0\0\2yz"
STATE = "%FILTER_STATE(envoy.filters.http.grpc_stats"
LOGGED = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "sent": "%BYTES_SENT%",
    "received": "%BYTES_RECEIVED%",
    "status": "%GRPC_STATUS%",
    "trailer": "%TRAILER(grpc-status)%",
    "path": "%PATH%",
    "type": "%REQ(content-type)%",
    "state": f"{STATE})%",
    "plain-state": f"{STATE}:PLAIN)%",
}


def grpc_filters(site: Site) -> Message:
    def stats(**fields: object) -> Message:
        return http_filter("grpc_stats", "FilterConfig", **fields)

    def bridge(**fields: object) -> Message:
        return http_filter("grpc_http1_bridge", "Config", **fields)

    methods = {"services": [{"name": "pkg.v1.Service", "method_names": ["Method", "Other"]}]}
    web = http_filter("grpc_web", "GrpcWeb")
    filters: dict[str, list[Message]] = {
        "stats": [stats()],
        "stats-all": [stats(stats_for_all_methods=True, emit_filter_state=True)],
        "stats-false": [stats(stats_for_all_methods=False)],
        "stats-dots": [stats(stats_for_all_methods=True, replace_dots_in_grpc_service_name=True)],
        "stats-listed": [stats(individual_method_stats_allowlist=methods, emit_filter_state=True)],
        "web": [web],
        "web-stats": [web, stats(stats_for_all_methods=True, emit_filter_state=True)],
        "bridge": [bridge()],
        "bridge-upgrade": [bridge(upgrade_protobuf_to_grpc=True)],
        "bridge-query": [bridge(ignore_query_parameters=True, upgrade_protobuf_to_grpc=True)],
        "bridge-stats": [bridge(upgrade_protobuf_to_grpc=True), stats(stats_for_all_methods=True)],
    }
    routes = [
        route("/said", say(503, "said 100%")),
        route("/empty", say(503)),
        route("/refused", to("refused")),
        route("/nowhere", to("empty")),
        route({"prefix": "/pkg"}),
        route({"prefix": "/"}),
    ]
    listed = [*routes[:-2], route("/", "b")]  # Envoy shows twice what is counted in both ways
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(
                    site,
                    listed if name == "stats-listed" else routes[:-1] if name.startswith("bridge") else routes,
                    filters=chosen,
                    http_protocol_options={"enable_trailers": True},
                    access_log=[access_log(site, LOGGED)],
                ),
            )
            for name, chosen in filters.items()
        ],
        [with_trailers(site, "a"), with_trailers(site, "b")],
    )


BOOTSTRAPS = {"grpc-filters": grpc_filters}

table = Table("grpc-filters", "grpc-filters")
CASES = table.cases


def answer(status: str = "0", *trailers: Header, chunks: tuple[bytes, ...] = (ONE, TWO), code: int = 200,
           kind: str = "application/grpc") -> Reply:  # fmt: skip
    return reply(code, headers=[("content-type", kind)], chunks=chunks, trailers=[("grpc-status", status), *trailers])


NO_TRAILERS = reply(200, headers=[("content-type", "application/grpc")], chunks=[ONE])
ONLY = reply(200, b"", [("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "gone")])
PAGE = reply(503, b"<b>down</b> 100%\xff", [("content-type", "text/html")])

for _listener in ("stats", "stats-all", "stats-false", "stats-dots", "stats-listed"):
    for _status in ("0", "5", "16"):
        table.get(f"{_listener}-{_status}", METHOD, [GRPC], method="POST", body=ONE + TWO, listener=_listener,
                  upstream=answer(_status))  # fmt: skip
    for _name, _reply in {
        "only": ONLY,
        "no-trailers": NO_TRAILERS,
        "page": PAGE,
        "failed": answer("0", code=500),
    }.items():
        table.get(f"{_listener}-{_name}", METHOD, [GRPC], method="POST", body=ONE, listener=_listener, upstream=_reply)
    for _number, _path in enumerate(
        ("/pkg.v1.Service/Other?x=/y", "/pkg.v1.Service/Third", "/Plain/Method", "/just", "//a//b/", "/a/b/c", "/said",
         "/refused/x", "/nowhere/x", "/empty")
    ):  # fmt: skip
        table.get(f"{_listener}-path-{_number}", _path, [GRPC], method="POST", body=ONE, listener=_listener,
                  upstream=answer())  # fmt: skip
    table.get(f"{_listener}-not-a-call", METHOD, body=ONE, method="POST", listener=_listener, upstream=answer())
    table.get(f"{_listener}-no-message", METHOD, [GRPC], method="POST", listener=_listener, upstream=answer(chunks=()))
    table.add(f"{_listener}-pieces", request("POST", METHOD, [GRPC], chunks=[ONE[:1], ONE[1:] + TWO[:3], TWO[3:] + ONE]),
              methods=("POST",), listener=_listener, upstream=answer(chunks=(ONE + TWO[:2], TWO[2:])))  # fmt: skip

WEB_TYPES = (
    *(
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
    ),
    *("application/grpc-web+json", "application/grpc-web; charset=utf-8", "Application/gRPC-Web", "application/grpc"),
)
for _written in WEB_TYPES:
    for _accept in ("", "application/grpc-web-text", "application/grpc-web", "application/grpc-web-text+proto", "*/*"):
        _headers = [("Content-Type", _written), *([("Accept", _accept)] if _accept else [])]
        _body = b64encode(ONE + TWO) if "text" in _written else ONE + TWO
        table.get(f"web-{_written[12:]}-{_accept[12:] or _accept}", METHOD, _headers, method="POST", body=_body,
                  listener="web", upstream=answer("0", ("grpc-message", "fine"), ("X-More", "yes")))  # fmt: skip
WEB = ("Content-Type", "application/grpc-web")
TEXT = ("Content-Type", "application/grpc-web-text+proto")
ACCEPT = ("Accept", "application/grpc-web-text")
# Envoy answers what cannot be decoded before it has seen the request's end
CLOSED_EARLY = ("client[0].closed", "client[0].response[0].headers.connection")
WEB_REPLIES = {
    "failed": answer("14", ("grpc-message", "why")),
    "only": ONLY,
    "page": PAGE,
    "page-200": reply(200, b"plain", [("content-type", "text/plain")]),
    "page-429": reply(429, b"slow", [("content-type", "text/plain")]),
    "page-long": reply(502, b"long " * 4000, [("content-type", "text/plain")]),
    "page-empty": reply(503, b"", [("content-type", "text/plain")]),
    "page-chunked": reply(503, chunks=[b"one ", b"two"], headers=[("content-type", "text/plain")]),
    "no-trailers": NO_TRAILERS,
    "proto": answer(kind="application/grpc+proto"),
    "json": answer(kind="application/grpc+json"),
    "parameters": answer(kind="application/grpc; x=y"),
    "already-web": reply(200, b"web", [("content-type", "application/grpc-web+proto")]),
    "status-500": answer(code=500),
    "large": answer(chunks=(b"\0\0\0\x27\x10" + b"x" * 10000, ONE)),
    "nothing": answer(chunks=()),
    "head-and-trailers": reply(200, headers=[("content-type", "application/grpc"), ("grpc-status", "3")], chunks=[ONE],
                               trailers=[("grpc-status", "0")]),
}  # fmt: skip
for _name, _reply in WEB_REPLIES.items():
    table.get(f"web-reply-{_name}", METHOD, [WEB], method="POST", body=ONE, listener="web", upstream=_reply)
    table.get(f"web-stats-reply-{_name}", METHOD, [WEB], method="POST", body=ONE, listener="web-stats", upstream=_reply)
    if _name not in ("no-trailers", "already-web"):  # Envoy waits for ever for the trailers of a text response
        table.get(f"web-text-reply-{_name}", METHOD, [TEXT, ACCEPT], method="POST", body=b64encode(ONE), listener="web",
                  upstream=_reply)  # fmt: skip
for _path in ("/said", "/empty", "/refused/x", "/nowhere/x"):
    for _named, _type in (("binary", WEB), ("text", TEXT)):
        table.get(f"web-{_named}{_path.replace('/', '-')}", _path, [_type, ACCEPT], method="POST", body=b64encode(ONE),
                  listener="web")  # fmt: skip
for _name, _body in {"bad": b"!!!!", "short": b"AAA", "padded": b"AA==", "padded-within": b64encode(ONE + b"y") * 2,
                     "lines": b"AAAA\r\nAAF4"}.items():  # fmt: skip
    table.get(f"web-base64-{_name}", METHOD, [TEXT], method="POST", body=_body, listener="web", upstream=answer(),
              partial=False, ignore=CLOSED_EARLY)  # fmt: skip
table.add("web-base64-pieces", request("POST", METHOD, [TEXT], chunks=[b"A", b"AAAA", b"AF4"]), methods=("POST",),
          listener="web", upstream=answer())  # fmt: skip
table.get("web-get", METHOD, [WEB], listener="web", upstream=answer())

PROTOBUF = ("Content-Type", "application/x-protobuf")
BRIDGE_REPLIES = {
    "ok": answer(),
    "one": answer(chunks=(ONE,)),
    "failed": answer("5", ("grpc-message", "gone"), ("x-more", "yes")),
    "bad-status": answer("x"),
    "no-status": reply(200, headers=[("content-type", "application/grpc")], chunks=[ONE], trailers=[("x-more", "yes")]),
    "only": ONLY,
    "no-trailers": NO_TRAILERS,
    "length": reply(200, ONE, [("content-type", "application/grpc")]),
    "page": PAGE,
    "page-chunked": answer(chunks=(b"abc",), kind="text/plain", code=503),
    "nothing": answer(chunks=()),
    "pieces": answer(chunks=(ONE[:2], ONE[2:])),
}
for _listener in ("bridge", "bridge-upgrade", "bridge-query", "bridge-stats"):
    for _named, _type in (("call", GRPC), ("protobuf", PROTOBUF)):
        for _name, _reply in BRIDGE_REPLIES.items():
            if _listener == "bridge-stats" and _name == "bad-status":
                continue  # Envoy makes a counter of whatever the status is
            if _named == "protobuf" and _listener != "bridge" and _name in ("length", "page", "page-chunked"):
                continue  # Envoy takes five octets off whatever it is, and leaves the length as it was
            table.get(f"{_listener}-{_named}-{_name}", f"{METHOD}?a=b", [_type], method="POST", body=b"\0\0\0\0\5hello",
                      listener=_listener, upstream=_reply)  # fmt: skip
        for _path in ("/said", "/empty", "/refused/x", "/nowhere/x", "/none"):
            table.get(f"{_listener}-{_named}{_path.replace('/', '-')}", _path, [_type], method="POST", body=b"hello",
                      listener=_listener)  # fmt: skip
    table.get(f"{_listener}-get", METHOD, [PROTOBUF], listener=_listener, upstream=answer())
    table.get(f"{_listener}-head", METHOD, [GRPC], method="HEAD", listener=_listener, upstream=answer())
    table.get(f"{_listener}-other-protobuf", METHOD, [("Content-Type", "application/protobuf")], method="POST", body=b"x",
              listener=_listener, upstream=answer())  # fmt: skip
    table.add(f"{_listener}-chunked", request("POST", METHOD, [PROTOBUF], chunks=[b"hel", b"lo"]), methods=("POST",),
              listener=_listener, upstream=answer())  # fmt: skip

table.get("z-counted", "/stats?filter=%5C.grpc", listener="admin", access_log=False)
