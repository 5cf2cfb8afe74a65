"""gRPC as it is spoken, over HTTP/2: replies, deadlines, retries and filters, with clients of either version."""

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
from tests.differential.case import Delay, ReadBody, Reply
from tests.differential.cases.grpc_filters import LOGGED
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import FieldLine
from tests.differential.http2_steps import Body, Head, ResetStream
from tests.differential.http2_upstream import answer

METHOD = "/pkg.v1.Service/Method"
GRPC: list[FieldLine] = [("content-type", "application/grpc"), ("te", "trailers")]
ONE, TWO = b"\0\0\0\0\1x", b"\0\0\0\0\2yz"
FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}
CONDITIONS = "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"


def grpc_http2(site: Site) -> Message:
    every = {"stats_for_all_methods": True, "emit_filter_state": True}
    filters: dict[str, list[Message]] = {
        "plain": [],
        "stats": [http_filter("grpc_stats", "FilterConfig", **every)],
        "web": [http_filter("grpc_web", "GrpcWeb")],
        "bridge": [http_filter("grpc_http1_bridge", "Config", upgrade_protobuf_to_grpc=True)],
        "all": [
            http_filter("grpc_web", "GrpcWeb"),
            http_filter("grpc_http1_bridge", "Config"),
            http_filter("grpc_stats", "FilterConfig", **every),
        ],
    }
    routes = [
        route("/said", say(503, "said 100% \u2713")),
        route("/refused", to("refused")),
        route("/slow", to("a", max_stream_duration={"grpc_timeout_header_max": "0.06s"})),
        route("/timeout", to("a", timeout="0.06s")),
        route("/retry", to("a", retry_policy={"retry_on": CONDITIONS, "num_retries": 2, "retry_back_off": FAST})),
        route({"prefix": "/", "grpc": {}}),
        route("/web"),
    ]
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(
                    site,
                    routes,
                    filters=chosen,
                    http_protocol_options={"enable_trailers": True},
                    access_log=[access_log(site, LOGGED)],
                    delayed_close_timeout="0.02s",
                ),
            )
            for name, chosen in filters.items()
        ],
        [http2_cluster(site, "a")],
    )


BOOTSTRAPS = {"grpc-http2": grpc_http2}

table = Http2Table("grpc-http2", "grpc-http2")
CASES = table.cases


def responding(status: str = "0", *trailers: FieldLine, body: bytes = ONE + TWO, code: int = 200) -> Reply:
    return answer(code, body, [("content-type", "application/grpc")], trailers=[("grpc-status", status), *trailers])


def only(status: str = "5", code: int = 200) -> Reply:
    fields = [("content-type", "application/grpc"), ("grpc-status", status), ("grpc-message", "caf%C3%A9")]
    return answer(code, b"", fields)


REPLIES = {
    "ok": responding(),
    "failed": responding("14", ("grpc-message", "why"), ("x-more-bin", "AAA")),
    "empty": responding(body=b""),
    "only": only(),
    "only-ok": only("0"),
    "no-status": answer(200, ONE, [("content-type", "application/grpc")]),
    "page": answer(503, b"<b>down</b> 100%", [("content-type", "text/html")]),
    "page-with-trailers": answer(500, b"page", [("content-type", "text/html")], trailers=[("x-more", "yes")]),
    "error-of-both": responding("13", code=503),
    "large": responding(body=b"\0\0\2\0\0" + b"m" * 131072),
    "reset": Reply((ReadBody(), ResetStream(8))),
    "reset-within": Reply(
        (ReadBody(), Head([(":status", "200"), ("content-type", "application/grpc")]), Body(ONE), Delay(0.05),
         ResetStream(8))
    ),
}  # fmt: skip
# Envoy resets what it has given up with INTERNAL_ERROR, and answers a request after its body where both come at once
CODES = ("client[0].stream[1].reset", "upstream[0].reset")
# Envoy does not take its own answer through filters that have seen another one
BEHIND_FILTERS = ("all", "reset-within")
for _listener in ("plain", "stats", "web", "bridge", "all"):
    for _name, _reply in REPLIES.items():
        table.ask(f"{_listener}-{_name}", METHOD, GRPC, method="POST", body=ONE, upstream=_reply, listener=_listener)
        if _listener in ("plain", "bridge", "all") and (_listener, _name) != BEHIND_FILTERS:
            table.get(
                f"{_listener}-1-{_name}", METHOD, GRPC, method="POST", body=ONE, upstream=_reply, listener=_listener
            )
    for _path in ("/said", "/refused", "/nowhere"):
        table.ask(f"{_listener}{_path.replace('/', '-')}", _path, GRPC, method="POST", body=ONE, listener=_listener,
                  ignore=CODES)  # fmt: skip
        table.ask(f"{_listener}{_path.replace('/', '-')}-alone", _path, GRPC, method="POST", listener=_listener)
SLOW = Reply((ReadBody(), Delay(0.5)))
for _path in ("/slow", "/timeout"):
    for _timeout in ("5S", "30m", ""):
        _fields = [*GRPC, *([("grpc-timeout", _timeout)] if _timeout else [])]
        table.ask(f"deadline{_path.replace('/', '-')}-{_timeout}", _path, _fields, method="POST", body=ONE,
                  listener="plain", upstream=SLOW, ignore=CODES, deadline=1.0)  # fmt: skip
for _status in (0, 1, 2, 4, 8, 13, 14, 16):
    table.ask(f"retry-only-{_status}", "/retry", GRPC, method="POST", body=ONE, listener="plain",
              upstream=[only(str(_status)), responding()])  # fmt: skip
table.ask("retry-not-in-trailers", "/retry", GRPC, method="POST", body=ONE, listener="plain",
          upstream=[responding("14"), responding()])  # fmt: skip
for _name, _reply in REPLIES.items():
    for _type in ("application/grpc-web", "application/grpc-web-text"):
        if "text" in _type and _name in ("no-status", "reset-within"):
            continue  # Envoy waits for ever for the trailers of a text response
        _body = b64encode(ONE) if "text" in _type else ONE
        _fields = [("content-type", _type), ("accept", _type)]
        for _listener in ("web", "all"):
            table.ask(f"{_listener}-{_type[12:]}-{_name}", "/web", _fields, method="POST", body=_body, upstream=_reply,
                      listener=_listener)  # fmt: skip
            if (_listener, _name) == BEHIND_FILTERS:
                continue
            table.get(f"{_listener}-1-{_type[12:]}-{_name}", "/web", _fields, method="POST", body=_body, upstream=_reply,
                      listener=_listener)  # fmt: skip
for _name in ("ok", "failed", "only"):
    table.get(f"bridge-1-protobuf-{_name}", "/web", [("content-type", "application/x-protobuf")], method="POST",
              body=b"hello", upstream=REPLIES[_name], listener="bridge")  # fmt: skip
table.get("z-counted", "/stats?filter=%5C.grpc", listener="admin", access_log=False)
