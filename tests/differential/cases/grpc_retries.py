"""Retries by gRPC status: judged by what the response's head says, as trailers-only responses say it."""

from __future__ import annotations

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, to
from tests.differential.case import Reply, Table, reply

GRPC = ("Content-Type", "application/grpc")
CONDITIONS = {"cancelled": 1, "deadline-exceeded": 4, "resource-exhausted": 8, "internal": 13, "unavailable": 14}
FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}


def grpc_retries(site: Site) -> Message:
    routes = [
        route(f"/{on}/", to("a", retry_policy={"retry_on": on, "num_retries": 2, "retry_back_off": FAST}))
        for on in CONDITIONS
    ]
    routes += [
        route("/two/", to("a", retry_policy={"retry_on": "unavailable,internal", "retry_back_off": FAST})),
        route("/5xx/", to("a", retry_policy={"retry_on": "5xx", "retry_back_off": FAST})),
        route("/", to("a")),
    ]
    inside: Message = {
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
    }
    return bootstrap(site, [listener(site, "http", manager(site, routes, **inside))])


BOOTSTRAPS = {"grpc-retries": grpc_retries}

table = Table("grpc-retries", "grpc-retries")
CASES = table.cases


def trailers_only(status: str, code: int = 200) -> Reply:
    return reply(code, b"", [("content-type", "application/grpc"), ("grpc-status", status), ("grpc-message", "why")])


DONE = trailers_only("0")
for _on, _number in CONDITIONS.items():
    for _status in (0, 1, 2, 4, 8, 13, 14, 16):
        table.get(f"{_on}-{_status}", f"/{_on}/", [GRPC], method="POST", upstream=[trailers_only(str(_status)), DONE])
    table.get(f"{_on}-exhausted", f"/{_on}/", [GRPC], method="POST", upstream=trailers_only(str(_number)))
    table.get(
        f"{_on}-by-header",
        "/",
        [GRPC, ("x-envoy-retry-grpc-on", _on)],
        method="POST",
        upstream=[trailers_only(str(_number)), DONE],
    )
    table.get(
        f"{_on}-by-other-header",
        "/",
        [GRPC, ("x-envoy-retry-on", _on)],
        method="POST",
        upstream=[trailers_only(str(_number)), DONE],
    )
    table.get(f"{_on}-not-a-call", f"/{_on}/", method="POST", upstream=[trailers_only(str(_number)), DONE])
for _written in ("014", "+14", "14 ", "14.0", "x", "", "4294967310"):
    table.get(f"written-{_written or 'nothing'}", "/unavailable/", [GRPC], upstream=[trailers_only(_written), DONE])
table.get("two", "/two/", [GRPC], method="POST", upstream=[trailers_only("13"), DONE])
table.get("http-503", "/unavailable/", [GRPC], method="POST", upstream=[reply(503), DONE])
table.get("http-503-with-status", "/unavailable/", [GRPC], method="POST", upstream=[trailers_only("14", 503), DONE])
table.get("5xx-not-by-status", "/5xx/", [GRPC], method="POST", upstream=[trailers_only("14"), DONE])
table.get("header-list", "/", [GRPC, ("x-envoy-retry-grpc-on", "cancelled, unavailable")], method="POST",
          upstream=[trailers_only("14"), DONE])  # fmt: skip
table.get(
    "max-retries",
    "/",
    [GRPC, ("x-envoy-retry-grpc-on", "unavailable"), ("x-envoy-max-retries", "3")],
    method="POST",
    upstream=[trailers_only("14"), trailers_only("14"), trailers_only("14"), DONE],
)
table.get(
    "in-trailers",
    "/unavailable/",
    [GRPC],
    method="POST",
    upstream=[reply(200, headers=[("content-type", "application/grpc")], chunks=[], trailers=[("grpc-status", "14")]),
              DONE],
)  # fmt: skip
