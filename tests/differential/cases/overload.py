"""The overload manager: what clients meet while an injected resource says that there is too much to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, http_filter, listener, manager, network_filter
from tests.differential.case import AwaitClose, AwaitResponses, Delay, Pause, ReadBody, Reply, Send, Table, request
from tests.differential.http2_case import Http2Table
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import AwaitStream

INJECTED = "envoy.resource_monitors.injected_resource"
CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"
TIMERS = "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig"
TRIGGERS = [{"name": INJECTED, "threshold": {"value": 0.9}}]
LONG = {"common_http_protocol_options": {"idle_timeout": "30s"}, "drain_timeout": "0.1s", "stream_idle_timeout": "60s"}
SHRUNK = [
    {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "0.2s"},
    {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_timeout": "0.3s"},
]


def action(name: str, **fields: Any) -> Message:
    return {"name": f"envoy.overload_actions.{name}", "triggers": TRIGGERS, **fields}


def overloaded(
    *actions: Message, points: Sequence[str] = (), pressure: float = 0.95, connections: int = 0
) -> Callable[[Site], Message]:
    """A bootstrap that is told of this pressure from the beginning."""

    def make(site: Site) -> Message:
        file = site.directory / "pressure"
        site.directory.mkdir(exist_ok=True)
        file.write_text(str(pressure))
        config = f"{MONITORS}.injected_resource.v3.InjectedResourceConfig"
        monitors = [{"name": INJECTED, "typed_config": {"@type": config, "filename": str(file)}}]
        if connections:
            config = f"{MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig"
            most = {"@type": config, "max_active_downstream_connections": connections}
            monitors.append({"name": CONNECTIONS, "typed_config": most})
        cors = [http_filter("cors", "Cors")]
        return bootstrap(
            site,
            [
                listener(site, "http", manager(site, **LONG)),
                listener(site, "filtered", manager(site, filters=cors)),
                listener(site, "telling", manager(site, append_local_overload=True)),
                listener(site, "exempt", manager(site, **LONG), bypass_overload_manager=True),
                listener(site, "tcp", network_filter("tcp_proxy", "TcpProxy", stat_prefix="tcp", cluster="a")),
            ],
            overload_manager={
                "refresh_interval": "0.02s",
                "resource_monitors": monitors,
                "actions": list(actions),
                "loadshed_points": [
                    {"name": f"envoy.load_shed_points.{name}", "triggers": TRIGGERS} for name in points
                ],
            },
        )

    return make


BOOTSTRAPS = {
    "overload-at-rest": overloaded(
        *map(action, ("stop_accepting_requests", "disable_http_keepalive", "reject_incoming_connections")), pressure=0.5
    ),
    "overload-requests": overloaded(action("stop_accepting_requests")),
    "overload-point": overloaded(points=["http_connection_manager_decode_headers"]),
    "overload-keepalive": overloaded(action("disable_http_keepalive")),
    "overload-both": overloaded(action("disable_http_keepalive"), action("stop_accepting_requests")),
    "overload-reject": overloaded(action("reject_incoming_connections")),
    "overload-accept": overloaded(points=["tcp_listener_accept"]),
    "overload-connections": overloaded(connections=2, pressure=0.0),
    "overload-timeouts": overloaded(
        action("reduce_timeouts", typed_config={"@type": TIMERS, "timer_scale_factors": SHRUNK})
    ),
}

table = Table("overload", "overload-requests")
CASES = table.cases
SOON = Pause(0.1)
"""The proxies look at the pressure some time after they are ready."""
HANG = Reply((ReadBody(), Delay(2.0)))
GET = request("GET", "/")
TWICE = (GET, AwaitResponses(1), GET)
CALL = [("content-type", "application/grpc"), ("te", "trailers")]

for _kind in ("at-rest", "requests", "point", "keepalive", "both", "timeouts"):
    _on = {"bootstrap": f"overload-{_kind}"}
    table.add(f"{_kind}-get", SOON, GET, **_on)
    table.add(f"{_kind}-twice", SOON, *TWICE, **_on)
    table.add(f"{_kind}-head", SOON, request("HEAD", "/"), **_on)
    table.add(f"{_kind}-post", SOON, request("POST", "/", body=b"body"), **_on)
    table.add(f"{_kind}-old", SOON, request("GET", "/", version="HTTP/1.0"), **_on)
    table.add(f"{_kind}-close", SOON, request("GET", "/", [("connection", "close")]), **_on)
    table.add(f"{_kind}-grpc", SOON, request("POST", "/a.B/C", CALL, body=b"\0\0\0\0\0"), **_on)
    table.add(f"{_kind}-filtered", SOON, request("GET", "/", [("origin", "b")]), listener="filtered", **_on)
for _kind in ("requests", "point"):
    _on = {"bootstrap": f"overload-{_kind}", "listener": "telling"}
    table.add(f"{_kind}-telling", SOON, GET, **_on)
    table.add(f"{_kind}-telling-grpc", SOON, request("POST", "/a.B/C", CALL, body=b"\0\0\0\0\0"), **_on)
for _kind in ("requests", "point", "keepalive", "reject", "accept", "timeouts"):
    table.add(f"{_kind}-exempt", SOON, *TWICE, bootstrap=f"overload-{_kind}", listener="exempt")
for _kind in ("reject", "accept"):
    table.add(f"{_kind}-http", SOON, GET, AwaitClose(), bootstrap=f"overload-{_kind}")
    table.raw(f"{_kind}-tcp", SOON, b"x", AwaitClose(), bootstrap=f"overload-{_kind}")
table.add(
    "connections",
    Send(GET, 0),
    AwaitResponses(1, 0),
    Send(GET, 1),
    AwaitResponses(1, 1),
    Send(GET, 2),
    AwaitClose(2),
    bootstrap="overload-connections",
)
table.add("timeouts-idle", SOON, GET, AwaitResponses(1), AwaitClose(), bootstrap="overload-timeouts")
table.add("timeouts-half-a-head", SOON, b"GET / HTTP/1.1\r\nHo", methods=("GET",), bootstrap="overload-timeouts")
table.add("timeouts-slow-upstream", SOON, GET, upstream=HANG, bootstrap="overload-timeouts")

http2 = Http2Table("overload", "overload-requests")
for _kind in ("requests", "point", "keepalive", "both", "timeouts"):
    _on = {"bootstrap": f"overload-{_kind}"}
    http2.frames(f"http2-{_kind}-get", SOON, ask(1, "GET", "/"), **_on)
    http2.frames(f"http2-{_kind}-twice", SOON, ask(1, "GET", "/"), AwaitStream(1), ask(3, "GET", "/"), **_on)
    http2.frames(f"http2-{_kind}-at-once", SOON, ask(1, "GET", "/") + ask(3, "GET", "/"), unordered=True, **_on)
    http2.frames(f"http2-{_kind}-post", SOON, ask(1, "POST", "/", body=b"body"), **_on)
    http2.frames(f"http2-{_kind}-grpc", SOON, ask(1, "POST", "/a.B/C", CALL, body=b"\0\0\0\0\0"), **_on)
CASES += http2.cases
