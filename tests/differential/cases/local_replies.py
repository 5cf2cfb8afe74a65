"""local_reply_config: mappers, formats and headers."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say, to
from tests.differential.case import (
    Table,
    reply,
    request,
)


def local_replies(site: Site) -> Message:
    def status(code: int, operator: str = "EQ") -> Message:
        return {
            "status_code_filter": {
                "comparison": {"op": operator, "value": {"default_value": code, "runtime_key": "none"}}
            }
        }

    mapped = {
        "mappers": [
            {"filter": status(404), "status_code": 418, "body": {"inline_string": "mapped"}},
            {
                "filter": {"header_filter": {"header": {"name": "x-json", "present_match": True}}},
                "body_format_override": {
                    "json_format": {
                        "code": "%RESPONSE_CODE%",
                        "text": "%LOCAL_REPLY_BODY%",
                        "details": "%RESPONSE_CODE_DETAILS%",
                    }
                },
            },
            {
                "filter": {"response_flag_filter": {"flags": ["UF"]}},
                "status_code": 502,
                "headers_to_add": [
                    {
                        "header": {"key": "x-mapped", "value": "%RESPONSE_FLAGS%"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                ],
            },
            {
                "filter": {"not_health_check_filter": {}},
                "body_format_override": {
                    "text_format_source": {"inline_string": "<%LOCAL_REPLY_BODY%> %REQ(X-TAG)%"},
                    "content_type": "text/html",
                },
            },
        ],
        "body_format": {"text_format_source": {"inline_string": "default %RESPONSE_CODE%"}},
    }
    formatted = {
        "body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %LOCAL_REPLY_BODY% %REQ(:PATH)%\n"}}
    }
    jsoned = {
        "body_format": {
            "json_format": {"error": {"code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%"}, "fixed": "value"}
        }
    }
    routes = [
        route("/refused", to("refused")),
        route("/empty", to("empty")),
        route("/said", say(404, "said")),
        route("/upstream", to("a")),
    ]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes, local_reply_config=mapped)),
            listener(site, "formatted", manager(site, routes, local_reply_config=formatted)),
            listener(site, "json", manager(site, routes, local_reply_config=jsoned)),
        ],
    )


BOOTSTRAPS = {"local-replies": local_replies}

table = Table("protocol", "local-replies")
CASES = table.cases
add = table.add
get = table.get

replies: dict[str, Any] = {"bootstrap": "local-replies"}
for _listener in ("http", "formatted", "json"):
    for _path in ("/refused", "/empty", "/said", "/none", "/upstream"):
        get(
            f"local-reply-{_listener}-{_path}",
            _path,
            [("X-Tag", "t")],
            listener=_listener,
            upstream=reply(404, body=b"own"),
            **replies,
        )
get("local-reply-by-header", "/refused", [("X-Json", "1")], **replies)
get(
    "local-reply-grpc",
    "/refused",
    [("Content-Type", "application/grpc")],
    method="POST",
    body=b"x",
    listener="json",
    **replies,
)
get("local-reply-head", "/refused", method="HEAD", listener="json", **replies)
add("local-reply-bad-request", b"GET / HTTP/1.1\r\n\r\n", listener="formatted", **replies)
add("local-reply-too-large", request("GET", "/", [("X-Large", "a" * 70_000)]), listener="json", **replies)
