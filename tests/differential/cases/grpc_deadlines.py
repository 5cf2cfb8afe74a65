"""``grpc-timeout``: which values count, how long a call may take, and what the upstream is told."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, to
from tests.differential.case import Delay, ReadBody, Reply, Table

GRPC = ("Content-Type", "application/grpc")
DURATIONS: dict[str, Message] = {
    "none": {},
    "max": {"grpc_timeout_header_max": "0.08s"},
    "unlimited": {"grpc_timeout_header_max": "0s"},
    "offset": {"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "0.05s"},
    "both": {"grpc_timeout_header_max": "30s", "grpc_timeout_header_offset": "1s"},
    "offset-only": {"grpc_timeout_header_offset": "1s"},
    "stream": {"max_stream_duration": "0.08s"},
    "stream-zero": {"max_stream_duration": "0s"},
    "stream-and-max": {"max_stream_duration": "20s", "grpc_timeout_header_max": "10s"},
    "long": {"max_stream_duration": "400000s", "grpc_timeout_header_max": "0s"},
    "empty": {},
}
VALUES = (
    *("1H", "1M", "1S", "1000m", "1000000u", "99999999n", "00000005S", "000000005S", "99999999H", "99999999S"),
    *("99999999m", "100000000m", "5", "S", "", "5s", "5h", "-5S", "+5S", " 5S", "5 S", "5.5S", "0x5S", "5SS"),
)


def grpc_deadlines(site: Site) -> Message:
    routes = [
        route(f"/{name}/", to("a", **({} if name == "none" else {"max_stream_duration": fields})))
        for name, fields in DURATIONS.items()
    ]
    routes += [
        route("/deprecated/", to("a", max_grpc_timeout="0.08s")),
        route("/deprecated-unlimited/", to("a", max_grpc_timeout="0s")),
        route("/deprecated-offset/", to("a", max_grpc_timeout="0s", grpc_timeout_offset="1s")),
        route("/deprecated-offset-only/", to("a", grpc_timeout_offset="1s")),
        route(
            "/deprecated-per-try/",
            to("a", max_grpc_timeout="0s", retry_policy={"retry_on": "5xx", "per_try_timeout": "0.5s"}),
        ),
        route(
            "/deprecated-and-new/", to("a", max_grpc_timeout="2s", max_stream_duration={"max_stream_duration": "9s"})
        ),
        route("/timeout-and-stream/", to("a", timeout="0.08s", max_stream_duration={"max_stream_duration": "5s"})),
        route("/timeout-and-idle/", to("a", timeout="0.08s", max_stream_duration={})),
        route("/deprecated-timeout/", to("a", max_grpc_timeout="30s", timeout="3s")),
    ]
    limited: Message = {"common_http_protocol_options": {"max_stream_duration": "7s"}}
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes)),
            listener(site, "limited", manager(site, routes, **limited)),
        ],
    )


BOOTSTRAPS = {"grpc-deadlines": grpc_deadlines}

table = Table("grpc-deadlines", "grpc-deadlines")
CASES = table.cases
SLOW = Reply((ReadBody(), Delay(0.6), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
for _value in VALUES:
    _named = _value.replace(" ", "_") or "nothing"
    for _path in ("unlimited", "deprecated-unlimited"):
        table.get(f"value-{_path}-{_named}", f"/{_path}/", [GRPC, ("grpc-timeout", _value)], method="POST")
_DEPRECATED = (
    *("deprecated", "deprecated-unlimited", "deprecated-offset", "deprecated-offset-only", "deprecated-per-try"),
    *("deprecated-and-new", "deprecated-timeout"),
)
for _path in (*DURATIONS, *_DEPRECATED):
    for _listener in ("http", "limited"):
        _of: dict[str, Any] = {"method": "POST", "listener": _listener}
        table.get(f"{_listener}-{_path}-told", f"/{_path}/", [GRPC, ("grpc-timeout", "5S")], **_of)
        if "grpc_timeout_header_max" not in DURATIONS.get(_path, {}):  # those run out at once, or just not yet
            table.get(f"{_listener}-{_path}-zero", f"/{_path}/", [GRPC, ("grpc-timeout", "0S")], **_of)
        table.get(f"{_listener}-{_path}-untold", f"/{_path}/", [GRPC], **_of)
        table.get(f"{_listener}-{_path}-bad", f"/{_path}/", [GRPC, ("grpc-timeout", "soon")], **_of)
        table.get(f"{_listener}-{_path}-not-grpc", f"/{_path}/", [("grpc-timeout", "5S")], listener=_listener)
for _path in ("timeout-and-stream", "timeout-and-idle"):
    table.get(_path, f"/{_path}/", upstream=SLOW)
    table.get(f"{_path}-header", f"/{_path}/", [("x-envoy-upstream-rq-timeout-ms", "70")], upstream=SLOW)
for _path in ("max", "stream", "deprecated"):
    table.get(f"{_path}-expires", f"/{_path}/", [GRPC, ("grpc-timeout", "1S")], method="POST", upstream=SLOW)
    table.get(f"{_path}-expires-plain", f"/{_path}/", [("grpc-timeout", "1S")], method="POST", upstream=SLOW)
for _path in ("unlimited", "deprecated-unlimited", "offset"):
    table.get(f"{_path}-expires", f"/{_path}/", [GRPC, ("grpc-timeout", "100m")], method="POST", upstream=SLOW)
table.get("header-before-grpc", "/deprecated/", [GRPC, ("x-envoy-upstream-rq-timeout-ms", "700")], method="POST")
