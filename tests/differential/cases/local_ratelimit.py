"""The local_ratelimit filter: buckets that run dry, descriptors, and what a limited request is told."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    cluster,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
    virtual_host,
)
from tests.differential.case import AwaitResponses, Table, request, turns

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


def generic(value: str, **fields: Any) -> Message:
    return {"actions": [{"generic_key": {"descriptor_value": value}}], **fields}


def local_descriptors(site: Site) -> Message:
    """Whose rate limits hold, and buckets that are made as values come: each descriptor passes once."""
    bucket = {"token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"}}
    names = ("route", "route-two", "host", "host-two", "own", "done", "disabled", "b")
    whole: Message = {
        "stat_prefix": "limit",
        "filter_enabled": {"runtime_key": "on", "default_value": ALWAYS},
        "filter_enforced": {"runtime_key": "enforced", "default_value": ALWAYS},
        "token_bucket": {"max_tokens": 1000, "fill_interval": "1s"},
        "descriptors": [{"entries": [{"key": "generic_key", "value": name}], **bucket} for name in names],
    }
    by_path = [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "path"}}]}]
    by_hits = [{**by_path[0], "hits_addend": {"format": "%REQ(x-hits)%"}}]
    wildcard = {"entries": [{"key": "path"}], **bucket}
    ten = {"entries": [{"key": "path"}], "token_bucket": {**bucket["token_bucket"], "max_tokens": 10}}
    listeners: dict[str, Message] = {
        "http": whole,
        "include": {**whole, "vh_rate_limits": "INCLUDE"},
        "ignore": {**whole, "vh_rate_limits": "IGNORE"},
        "stage": {**whole, "stage": 2},
        "own": {**whole, "rate_limits": [generic("own")]},
        "own-done": {**whole, "rate_limits": [generic("done", apply_on_stream_done=True)]},
        "any": {**whole, "descriptors": [wildcard], "rate_limits": by_path, "max_dynamic_descriptors": 2},
        "hits": {**whole, "descriptors": [ten], "rate_limits": by_hits},
        "announced": {
            **whole,
            "descriptors": [ten],
            "rate_limits": by_path,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        },
        "without-default": {
            **whole,
            "token_bucket": {**bucket["token_bucket"], "max_tokens": 2},
            "descriptors": [ten],
            "rate_limits": by_path,
            "always_consume_default_token_bucket": False,
        },
    }

    def limits(*rate_limits: Message, **fields: Any) -> Message:
        return to("a", rate_limits=list(rate_limits), **fields)

    routes = [
        route("/both", limits(generic("route"), generic("route-two", stage=2))),
        route("/include", limits(generic("route"), include_vh_rate_limits=True)),
        route("/done", limits(generic("done", apply_on_stream_done=True))),
        route("/disabled", limits(generic("disabled", disable_key="key"))),
        route("/hits", limits(generic("b", hits_addend={"number": 0}))),
        route("/"),
    ]
    hosts = [
        virtual_host("limited", ["limited.test"], routes, rate_limits=[generic("host"), generic("host-two", stage=2)]),
        virtual_host("all", ["*"], routes),
    ]
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(site, hosts=hosts, filters=[http_filter("local_ratelimit", "LocalRateLimit", **fields)]),
            )
            for name, fields in listeners.items()
        ],
    )


def local_cluster(site: Site) -> Message:
    """What the buckets hold is for three proxies together."""
    bucket = {"token_bucket": {"max_tokens": 7, "tokens_per_fill": 1, "fill_interval": "3600s"}}
    whole: Message = {
        "stat_prefix": "limit",
        "filter_enabled": {"runtime_key": "on", "default_value": ALWAYS},
        "filter_enforced": {"runtime_key": "enforced", "default_value": ALWAYS},
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "local_cluster_rate_limit": {},
        **bucket,
    }
    by_path = [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "path"}}]}]
    several = {**whole, "rate_limits": by_path, "descriptors": [{"entries": [{"key": "path"}], **bucket}],
               "always_consume_default_token_bucket": False}  # fmt: skip
    plain = {key: value for key, value in whole.items() if key != "enable_x_ratelimit_headers"}
    return bootstrap(
        site,
        [
            listener(site, name, manager(site, filters=[http_filter("local_ratelimit", "LocalRateLimit", **fields)]))
            for name, fields in {"http": whole, "descriptors": several, "plain": plain}.items()
        ],
        [cluster(site, "local", ["a", "b", "c"])],
        cluster_manager={"local_cluster_name": "local"},
    )


BOOTSTRAPS = {
    "local-ratelimit": local_ratelimit,
    "local-descriptors": local_descriptors,
    "local-cluster": local_cluster,
}

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

for _listener in ("http", "include", "ignore", "stage", "own", "own-done"):
    for _host in ("a.test", "limited.test"):
        for _path in ("/both", "/include", "/done", "/disabled", "/hits", "/plain"):
            table.add(
                f"{_listener}-{_host}{_path.replace('/', '-')}",
                *turns(*(request("GET", _path, host=_host) for _ in range(2))),
                listener=_listener,
                bootstrap="local-descriptors",
            )
_ANY = ("/1", "/1", "/2", "/2", "/3", "/1", "/3")
table.add("any", *turns(*(request("GET", path) for path in _ANY)), listener="any", bootstrap="local-descriptors")
for _hits in ("4", "0", "x", "1.5", "20"):
    _counted = [request("GET", f"/{_hits}", [("x-hits", _hits)]) for _ in range(3)]
    table.add(f"hits-{_hits}", *turns(*_counted), listener="hits", bootstrap="local-descriptors")
for _listener in ("announced", "without-default"):
    _same = [request("GET", "/same") for _ in range(11)]
    table.add(f"{_listener}-ten", *turns(*_same), listener=_listener, bootstrap="local-descriptors")
for _listener in ("http", "descriptors", "plain"):
    _same = [request("GET", "/same") for _ in range(4)]
    table.add(f"cluster-{_listener}", *turns(*_same), listener=_listener, bootstrap="local-cluster")
