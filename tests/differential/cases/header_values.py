"""Header values that filters, services and formats bring, and that may not stand on the wire: none of them leaves."""

from __future__ import annotations

from typing import Any

from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from google.protobuf.json_format import ParseDict

from tests.differential.blocks import (
    LOGGED,
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
from tests.differential.case import ReadBody, Reply, Table
from tests.differential.http2_case import http2_cluster
from tests.differential.http2_steps import Body, Head
from tests.tokens import jwk, jwks, token

_SUBJECT = "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%"


def _add(key: str, value: str) -> Message:
    return {"header": {"key": key, "value": value}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}


def header_values(site: Site) -> Message:
    provider = {
        "issuer": "one",
        "local_jwks": {"inline_string": jwks(jwk("one", "RS256"))},
        "payload_in_metadata": "payload",
        "forward": True,
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "one"}}]
    jwt = http_filter("jwt_authn", "JwtAuthentication", providers={"one": provider}, rules=rules)

    def mutation(kind: str) -> Message:
        return http_filter("header_mutation", "HeaderMutation", mutations={kind: [{"append": _add("x-u", _SUBJECT)}]})

    service = {"grpc_service": {"envoy_grpc": {"cluster_name": "c"}}, "transport_api_version": "V3"}
    limit = http_filter("ratelimit", "RateLimit", domain="t", timeout="2s", rate_limit_service=service)
    logged = [access_log(site, {**LOGGED, "subject": _SUBJECT})]
    listeners = []
    for cluster, before in (("a", ""), ("h2", "h2-")):
        routes = [
            route("/request", to(cluster), request_headers_to_add=[_add("x-u", _SUBJECT)]),
            route("/response", to(cluster), response_headers_to_add=[_add("x-u", _SUBJECT)]),
            route("/said", say(200, "said"), response_headers_to_add=[_add("x-u", _SUBJECT)]),
            route("/", to(cluster)),
        ]
        limited = route("/", to(cluster, rate_limits=[{"actions": [{"generic_key": {"descriptor_value": "v"}}]}]))
        listeners += [
            listener(site, f"{before}routes", manager(site, routes, filters=[jwt], access_log=logged)),
            listener(
                site,
                f"{before}request",
                manager(
                    site, [route("/", to(cluster))], filters=[jwt, mutation("request_mutations")], access_log=logged
                ),
            ),
            listener(
                site,
                f"{before}response",
                manager(site, [route("/", to(cluster))], filters=[jwt, mutation("response_mutations")]),
            ),
            listener(site, f"{before}limited", manager(site, [limited], filters=[limit])),
        ]
    return bootstrap(site, listeners, [http2_cluster(site, "h2", "d"), http2_cluster(site, "c", "c")])


BOOTSTRAPS = {"header-values": header_values}

_OVER_HTTP2 = Reply((ReadBody(), Head([(":status", "200")], end=True)))
_VALUES = {
    "two-fields": "a\r\nx-evil: 1",
    "line-feed": "a\nx-evil: 1",
    "carriage-return": "a\rb",
    "nul": "a\0b",
    "bell": "a\x07b",
    "delete": "a\x7fb",
    "tab": "a\tb",
    "plain": "abc",
    "spaces": " a ",
    "two-requests": "a\r\ncontent-length: 0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x",
}


def _says(**fields: Any) -> Reply:
    message = ParseDict({"overall_code": "OK", **fields}, RateLimitResponse()).SerializeToString()
    head = Head([(":status", "200"), ("content-type", "application/grpc")])
    body = Body(b"\0" + len(message).to_bytes(4, "big") + message)
    return Reply((ReadBody(), head, body, Head([("grpc-status", "0")], end=True)))


def _cases() -> list[Any]:
    table = Table("header-values", "header-values")
    for name, value in _VALUES.items():
        bearer = [("Authorization", f"Bearer {token('one', sub=value)}")]
        splits = name == "two-requests"  # what Envoy makes of it in a response, no client can read
        for path in ("request",) if splits else ("request", "response", "said"):
            table.get(f"{path}-{name}", f"/{path}", bearer, listener="routes")
        for kind in ("request",) if splits else ("request", "response"):
            table.get(f"mutation-{kind}-{name}", "/", bearer, listener=kind)
            table.get(f"h2-mutation-{kind}-{name}", "/", bearer, listener=f"h2-{kind}", upstream={"d": (_OVER_HTTP2,)})
        table.get(f"h2-request-{name}", "/request", bearer, listener="h2-routes", upstream={"d": (_OVER_HTTP2,)})
        if not splits:
            for where in ("request_headers_to_add", "response_headers_to_add"):
                says = _says(**{where: [{"key": "x-u", "value": value}]})
                table.get(f"service-{where}-{name}", "/", listener="limited", upstream={"c": (says,)})
    for name, key in {"two-fields": "x-a: b\r\nx-evil", "space": "x y", "colon": "a:b"}.items():
        says = _says(request_headers_to_add=[{"key": key, "value": "v"}])
        table.get(f"service-name-{name}", "/", listener="limited", upstream={"c": (says,)})
        both = {"c": (says,), "d": (_OVER_HTTP2,)}
        table.get(f"h2-service-name-{name}", "/", listener="h2-limited", upstream=both)
    return table.cases


CASES = _cases()
