"""The local_ratelimit filter: buckets that run dry, descriptors, and what a limited request is told."""

from __future__ import annotations

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
)
from tests.differential.case import AwaitResponses, Table, request

ALWAYS = {"numerator": 100}


def local_ratelimit(site: Site) -> Message:
    def bucket(tokens: int, interval: str = "3600s") -> Message:
        return {"token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval}}

    enforced = {
        "filter_enabled": {"runtime_key": "on", "default_value": ALWAYS},
        "filter_enforced": {"runtime_key": "enforced", "default_value": ALWAYS},
    }
    added = [{"header": {"key": "x-limited", "value": "yes"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    listeners: dict[str, Message] = {
        "http": {**bucket(1), **enforced},
        "not-enforced": {**bucket(1), "filter_enabled": enforced["filter_enabled"]},
        "not-enabled": bucket(1),
        "with-headers": {
            **bucket(1),
            **enforced,
            "response_headers_to_add": added,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        },
        "other-status": {**bucket(1), **enforced, "status": {"code": "ServiceUnavailable"}},
        "grpc": {**bucket(1), **enforced, "rate_limited_as_resource_exhausted": True},
        "per-connection": {**bucket(1), **enforced, "local_rate_limit_per_downstream_connection": True},
        "descriptors": {
            **bucket(100),
            **enforced,
            "descriptors": [
                {"entries": [{"key": "path", "value": "/one"}], **bucket(1)},
                {"entries": [{"key": "who", "value": "me"}], **bucket(2)},
            ],
        },
    }
    for message in listeners.values():
        message["stat_prefix"] = "limit"

    def own(tokens: int) -> Message:
        fields = {**bucket(tokens), **enforced, "stat_prefix": "own"}
        return {"typed_per_filter_config": per_filter("local_ratelimit", "LocalRateLimit", **fields)}

    actions = [
        {"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "path"}}]},
        {"actions": [{"request_headers": {"header_name": "x-who", "descriptor_key": "who"}}]},
    ]
    routes = [route("/own", to("a"), **own(2)), route("/", to("a", rate_limits=actions))]
    return bootstrap(
        site,
        [
            listener(
                site, name, manager(site, routes, filters=[http_filter("local_ratelimit", "LocalRateLimit", **fields)])
            )
            for name, fields in listeners.items()
        ],
    )


BOOTSTRAPS = {"local-ratelimit": local_ratelimit}

table = Table("local-ratelimit", "local-ratelimit")
CASES = table.cases
TWICE = (request("GET", "/"), AwaitResponses(1), request("GET", "/"))
for _listener in ("http", "not-enforced", "not-enabled", "with-headers", "other-status", "per-connection"):
    table.add(_listener, *TWICE, listener=_listener)
table.add("per-connection-again", *TWICE, listener="per-connection")
GRPC = request("POST", "/", [("Content-Type", "application/grpc")], body=b"x")
table.add("grpc", GRPC, AwaitResponses(1), GRPC, listener="grpc")
table.add(
    "route-own",
    *(request("GET", "/own") for _ in range(1)),
    AwaitResponses(1),
    request("GET", "/own"),
    AwaitResponses(2),
    request("GET", "/own"),
)
table.add("descriptor-path", request("GET", "/one"), AwaitResponses(1), request("GET", "/one"), listener="descriptors")
table.add("descriptor-other", request("GET", "/two"), AwaitResponses(1), request("GET", "/two"), listener="descriptors")
table.add(
    "descriptor-header",
    *[step for number in range(3) for step in (request("GET", "/x", [("X-Who", "me")]), AwaitResponses(number + 1))],
    listener="descriptors",
)
