"""What gRPC callers are told by the proxy itself: trailers-only replies, and who counts as a gRPC caller."""

from __future__ import annotations

from tests.differential.blocks import (
    HTTP_FILTERS,
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    route,
    say,
    to,
)
from tests.differential.case import Close, Delay, ReadBody, Reply, Reset, Table, reply

STATUSES = (*range(200, 206), *range(400, 410), 413, 418, 429, 431, 499, *range(500, 506))
CONTENT_TYPES = {
    "plain": "application/grpc",
    "proto": "application/grpc+proto",
    "json": "application/grpc+json",
    "plus": "application/grpc+",
    "parameters": "application/grpc; charset=utf-8",
    "capitals": "Application/GRPC",
    "web": "application/grpc-web",
    "web-text": "application/grpc-web-text",
    "longer": "application/grpcx",
    "blank": "application/grpc ",
    "other": "application/json",
}
GRPC = ("Content-Type", "application/grpc")
UNUSUAL = '100% "caf\u00e9" \u2713 \x7f~\ttab'


def grpc_replies(site: Site) -> Message:
    def limit(name: str, **fields: object) -> Message:
        return {
            "typed_per_filter_config": {
                "envoy.filters.http.local_ratelimit": {
                    "@type": f"{HTTP_FILTERS}.local_ratelimit.v3.LocalRateLimit",
                    "stat_prefix": name,
                    "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
                    "filter_enabled": {"default_value": {"numerator": 100}},
                    "filter_enforced": {"default_value": {"numerator": 100}},
                    **fields,
                }
            }
        }

    routes = [
        route(f"/status/{status}", say(status, "" if status in (204, 205) else f"said {status}")) for status in STATUSES
    ]
    routes += [
        route("/unusual", say(503, UNUSUAL)),
        route("/empty-body", say(503)),
        route("/long", say(503, "x" * 3000)),
        route("/redirect", {"redirect": {"path_redirect": "/new"}}),
        route("/refused", to("refused")),
        route("/no-host", to("empty")),
        route("/timeout", to("a", timeout="0.05s")),
        route("/limited", to("a"), **limit("plain")),
        route("/exhausted", to("a"), **limit("exhausted", rate_limited_as_resource_exhausted=True)),
        route("/headers", say(503, "body"), response_headers_to_add=[{"header": {"key": "x-added", "value": "yes"}}]),
        route("/to-b", to("b")),
        route({"prefix": "/only-grpc", "grpc": {}}),
    ]
    text = {"text_format_source": {"inline_string": "%RESPONSE_CODE% is \u2713 %LOCAL_REPLY_BODY%%%\n"}}
    fields = {"json_format": {"code": "%RESPONSE_CODE%", "body": "%LOCAL_REPLY_BODY%"}}
    mapped = {
        "mappers": [
            {
                "filter": {
                    "status_code_filter": {
                        "comparison": {"op": "EQ", "value": {"default_value": 404, "runtime_key": "none"}}
                    }
                },
                "status_code": 403,
                "body": {"inline_string": "not for you"},
                "headers_to_add": [{"header": {"key": "x-mapped", "value": "yes"}}],
            }
        ]
    }
    limiter = http_filter("local_ratelimit", "LocalRateLimit", stat_prefix="none")
    options: dict[str, Message] = {
        "http": {},
        "text": {"local_reply_config": {"body_format": text}},
        "json": {"local_reply_config": {"body_format": fields}},
        "mapped": {"local_reply_config": mapped},
    }
    return bootstrap(
        site,
        [listener(site, name, manager(site, routes, filters=[limiter], **given)) for name, given in options.items()],
    )


BOOTSTRAPS = {"grpc-replies": grpc_replies}

table = Table("grpc-replies", "grpc-replies")
CASES = table.cases
for _status in STATUSES:
    table.get(f"status-{_status}", f"/status/{_status}", [GRPC], method="POST", body=b"\0\0\0\0\1x")
for _name, _type in CONTENT_TYPES.items():
    table.get(f"type-{_name}", "/status/404", [("Content-Type", _type)], method="POST", body=b"\0\0\0\0\1x")
    table.get(f"match-{_name}", "/only-grpc", [("Content-Type", _type)], method="POST", body=b"\0\0\0\0\1x")
table.get("match-without", "/only-grpc")
table.get("type-repeated", "/status/404", [GRPC, GRPC], method="POST")
for _method in ("GET", "HEAD", "PUT"):
    table.get(f"method-{_method.lower()}", "/status/503", [GRPC], method=_method)
for _path in ("unusual", "empty-body", "long", "redirect", "refused", "no-host", "headers", "nowhere"):
    table.get(_path, f"/{_path}", [GRPC], method="POST", body=b"\0\0\0\0\1x")
table.get("timeout", "/timeout", [GRPC], method="POST", upstream=Reply((ReadBody(), Delay(0.5))))
table.get("reset", "/to-b", [GRPC], method="POST", body=b"\0\0\0\0\1x", upstream=Reply((ReadBody(), Reset())))
table.get("closed", "/to-b", [GRPC], method="POST", body=b"\0\0\0\0\1x", upstream=Reply((ReadBody(), Close())))
table.get(
    "http-error-from-upstream", "/to-b", [GRPC], method="POST", upstream=reply(503, b"down", [("x-why", "maintenance")])
)
table.get(
    "alt-response",
    "/timeout",
    [GRPC, ("x-envoy-upstream-rq-timeout-alt-response", "1")],
    method="POST",
    upstream=Reply((ReadBody(), Delay(0.5))),
)
for _path in ("limited", "exhausted"):
    _sent = f"POST /{_path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"
    table.add(f"rate-{_path}", _sent.encode(), _sent.encode())
for _listener in ("text", "json", "mapped"):
    for _path in ("status/404", "status/503", "unusual", "empty-body", "refused"):
        table.get(f"{_listener}-{_path.replace('/', '-')}", f"/{_path}", [GRPC], method="POST", listener=_listener)
    table.get(f"{_listener}-not-grpc", "/status/404", listener=_listener)
table.get("head-local", "/refused", [GRPC], method="HEAD")
table.get("malformed-length", "/", [GRPC, ("Content-Length", "1x")], method="POST")
