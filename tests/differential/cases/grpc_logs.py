"""gRPC in access logs: ``%GRPC_STATUS%`` in its forms, and the filter by gRPC status."""

from __future__ import annotations

from tests.differential.blocks import (
    FILE_LOG,
    LOGGED,
    Message,
    Site,
    bootstrap,
    cluster,
    listener,
    manager,
    route,
    say,
    typed,
)
from tests.differential.case import Reply, Table, reply

PROTOCOL_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
GRPC = ("Content-Type", "application/grpc")
FORMATS = {
    **LOGGED,
    "grpc": "%GRPC_STATUS%",
    "camel": "%GRPC_STATUS(CAMEL_STRING)%",
    "snake": "%GRPC_STATUS(SNAKE_STRING)%",
    "as-number": "%GRPC_STATUS(NUMBER)%",
    "number": "%GRPC_STATUS_NUMBER%",
    "trailer": "%TRAILER(grpc-status)%",
    "message": "%RESP(grpc-message)%",
    "in-text": "is %GRPC_STATUS% or %GRPC_STATUS_NUMBER%",
}
FILTERS: dict[str, Message] = {
    "http": {},
    "none": {"grpc_status_filter": {}},
    "failed": {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}},
    "unavailable": {"grpc_status_filter": {"statuses": ["UNAVAILABLE", "CANCELED", "UNKNOWN"]}},
    "not-unavailable": {"grpc_status_filter": {"statuses": ["UNAVAILABLE"], "exclude": True}},
}


def with_trailers(site: Site, name: str) -> Message:
    """A cluster whose HTTP/1.1 connections may carry trailers."""
    explicit = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": PROTOCOL_OPTIONS, **explicit}}
    return cluster(site, name, typed_extension_protocol_options=options)


def grpc_logs(site: Site) -> Message:
    def log(filter: Message) -> Message:
        made = typed(
            "envoy.access_loggers.file",
            FILE_LOG,
            path=str(site.directory / "access.log"),
            log_format={"json_format": FORMATS},
        )
        return {**made, **({"filter": filter} if filter else {})}

    routes = [route("/said", say(503, "said")), route("/refused", "refused"), route("/")]
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(site, routes, access_log=[log(filter)], http_protocol_options={"enable_trailers": True}),
            )
            for name, filter in FILTERS.items()
        ],
        [with_trailers(site, "a")],
    )


BOOTSTRAPS = {"grpc-logs": grpc_logs}

table = Table("grpc-logs", "grpc-logs")
CASES = table.cases


def in_head(status: str) -> Reply:
    return reply(200, b"", [("content-type", "application/grpc"), ("grpc-status", status)])


def in_trailers(status: str) -> Reply:
    trailers = [("grpc-status", status), ("grpc-message", "why")]
    return reply(200, headers=[("content-type", "application/grpc")], chunks=[b"\0\0\0\0\1x"], trailers=trailers)


for _status in (*map(str, range(18)), "99", "x", "", "-1", "05", "+3", "4294967295", "18446744073709551616"):
    for _kind, _answer in (("head", in_head), ("trailers", in_trailers)):
        _named = f"{_kind}-{_status or 'nothing'}"
        table.get(_named, headers=[GRPC], method="POST", upstream=_answer(_status))
for _listener in FILTERS:
    for _status in ("0", "1", "14", "x", "20"):
        for _kind, _answer in (("head", in_head), ("trailers", in_trailers)):
            table.get(
                f"{_listener}-filter-{_kind}-{_status}",
                headers=[GRPC],
                method="POST",
                listener=_listener,
                upstream=_answer(_status),
            )
    table.get(f"{_listener}-said", "/said", [GRPC], method="POST", listener=_listener)
    table.get(f"{_listener}-refused", "/refused", [GRPC], method="POST", listener=_listener)
    table.get(f"{_listener}-not-a-call", upstream=in_trailers("14"), listener=_listener)
    table.get(f"{_listener}-not-a-call-said", "/said", listener=_listener)
    table.get(f"{_listener}-http-only", headers=[GRPC], method="POST", listener=_listener, upstream=reply(429))
table.get("both", headers=[GRPC], upstream=reply(
    200,
    headers=[("content-type", "application/grpc"), ("grpc-status", "3")],
    chunks=[b"\0\0\0\0\1x"],
    trailers=[("grpc-status", "5")],
))  # fmt: skip
