"""Who the client is said to be: addresses, hops, via, request ids, schemes, user agents and the server header."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import LOGGED, Message, Site, access_log, bootstrap, listener, manager
from tests.differential.case import Header, Table, reply

INTERNAL = {
    "cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}, {"address_prefix": "10.0.0.0", "prefix_len": 8}]
}

LISTENERS: dict[str, dict[str, Any]] = {
    "http": {},
    "edge": {"use_remote_address": True},
    "edge-internal": {"use_remote_address": True, "internal_address_config": INTERNAL},
    "edge-one-hop": {"use_remote_address": True, "xff_num_trusted_hops": 1},
    "edge-skip-append": {"use_remote_address": True, "skip_xff_append": True},
    "inner-internal": {"internal_address_config": INTERNAL},
    "inner-one-hop": {"xff_num_trusted_hops": 1, "internal_address_config": INTERNAL},
    "inner-two-hops": {"xff_num_trusted_hops": 2},
    "via": {"via": "1.1 mizzen"},
    "no-request-id": {"generate_request_id": False},
    "preserve-request-id": {"use_remote_address": True, "preserve_external_request_id": True},
    "respond-request-id": {"always_set_request_id_in_response": True},
    "user-agent": {"add_user_agent": True},
    "user-agent-edge": {"add_user_agent": True, "use_remote_address": True, "internal_address_config": INTERNAL},
    "server-name": {"server_name": "lighthouse"},
    "server-absent": {"server_header_transformation": "APPEND_IF_ABSENT"},
    "server-pass": {"server_header_transformation": "PASS_THROUGH"},
    "scheme-https": {"scheme_header_transformation": {"scheme_to_overwrite": "https"}},
    "append-proto": {"use_remote_address": True, "append_x_forwarded_port": True},
    "inner-append-port": {"append_x_forwarded_port": True},
}
OPERATORS = {
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "scheme": "%REQ(:SCHEME)%",
    "forwarded": "%REQ(X-FORWARDED-FOR)%",
}


def forwarding(site: Site) -> Message:
    logged: Message = {"access_log": [access_log(site, LOGGED | OPERATORS)]}
    return bootstrap(
        site, [listener(site, name, manager(site, **logged, **options)) for name, options in LISTENERS.items()]
    )


BOOTSTRAPS = {"forwarding": forwarding}

table = Table("forwarding", "forwarding")
CASES = table.cases

XFF: tuple[tuple[str, list[Header]], ...] = (
    ("none", []),
    ("one", [("X-Forwarded-For", "1.2.3.4")]),
    ("two", [("X-Forwarded-For", "1.2.3.4, 5.6.7.8")]),
    ("three", [("X-Forwarded-For", "1.2.3.4,5.6.7.8,9.9.9.9")]),
    ("internal", [("X-Forwarded-For", "10.1.2.3")]),
    ("internal-last", [("X-Forwarded-For", "1.2.3.4, 10.1.2.3")]),
    ("garbage", [("X-Forwarded-For", "nobody")]),
    ("empty", [("X-Forwarded-For", "")]),
    ("ipv6", [("X-Forwarded-For", "2001:db8::1")]),
    ("two-lines", [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8")]),
    ("with-port", [("X-Forwarded-For", "1.2.3.4:5678")]),
)
INTERNAL_HEADERS = [
    ("x-envoy-internal", "true"),
    ("x-envoy-downstream-service-cluster", "c"),
    ("x-envoy-downstream-service-node", "n"),
    ("x-envoy-force-trace", "1"),
    ("x-envoy-original-path", "/x"),
    ("x-envoy-max-retries", "2"),
    ("x-envoy-decorator-operation", "op"),
    ("x-envoy-expected-rq-timeout-ms", "5"),
    ("x-envoy-external-address", "9.9.9.9"),
    ("x-envoy-ip-tags", "t"),
    ("x-envoy-original-url", "u"),
    ("x-envoy-upstream-alt-stat-name", "s"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-peer-metadata", "m"),
]
for _listener in (
    "http",
    "edge",
    "edge-internal",
    "edge-one-hop",
    "edge-skip-append",
    "inner-internal",
    "inner-one-hop",
    "inner-two-hops",
):
    for _name, _headers in XFF:
        table.get(f"xff-{_name}-{_listener}", headers=_headers, listener=_listener)
for _listener in ("http", "edge", "edge-internal", "inner-internal"):
    table.get(f"internal-headers-{_listener}", headers=INTERNAL_HEADERS, listener=_listener)
    for _name, _headers in (
        ("request-id", [("X-Request-Id", "given")]),
        ("request-id-uuid", [("X-Request-Id", "6f1b2f60-3c4c-4a9f-8b1e-0123456789ab")]),
        ("proto", [("X-Forwarded-Proto", "https")]),
        ("proto-capitals", [("X-Forwarded-Proto", "HTTPS")]),
        ("proto-bad", [("X-Forwarded-Proto", "tea")]),
        ("port", [("X-Forwarded-Port", "99")]),
        ("host", [("X-Forwarded-Host", "other.test")]),
        ("client-trace", [("X-Client-Trace-Id", "trace")]),
        ("external-address", [("X-Envoy-External-Address", "8.8.8.8"), ("X-Forwarded-For", "1.2.3.4")]),
    ):
        table.get(f"{_name}-{_listener}", headers=_headers, listener=_listener)
    table.get(
        f"internal-response-headers-{_listener}",
        listener=_listener,
        upstream=reply(
            headers=[
                ("x-envoy-decorator-operation", "o"),
                ("x-envoy-immediate-health-check-fail", "1"),
                ("x-envoy-upstream-canary", "true"),
                ("x-envoy-degraded", "1"),
            ]
        ),
    )
table.get("via", listener="via")
table.get(
    "via-given", headers=[("Via", "1.0 other")], listener="via", upstream=reply(headers=[("Via", "1.1 upstream")])
)
table.get("request-id-not-generated", listener="no-request-id")
table.get("request-id-not-generated-given", headers=[("X-Request-Id", "mine")], listener="no-request-id")
table.get("request-id-preserved", headers=[("X-Request-Id", "mine")], listener="preserve-request-id")
table.get("request-id-responded", headers=[("X-Request-Id", "mine")], listener="respond-request-id")
table.get("request-id-responded-generated", listener="respond-request-id")
for _listener in ("user-agent", "user-agent-edge"):
    table.get(f"{_listener}-none", listener=_listener)
    table.get(f"{_listener}-given", headers=[("User-Agent", "curl")], listener=_listener)
for _listener in ("server-name", "server-absent", "server-pass"):
    table.get(f"{_listener}-none", listener=_listener)
    table.get(f"{_listener}-given", listener=_listener, upstream=reply(headers=[("Server", "upstream")]))
table.get("scheme-overwritten", listener="scheme-https")
table.get("scheme-overwritten-absolute", "http://a.test/x", listener="scheme-https")
for _listener in ("http", "edge", "edge-one-hop", "edge-internal", "scheme-https", "inner-one-hop"):
    for _scheme in ("http", "https", "HTTPS"):
        table.get(f"absolute-{_scheme}-{_listener}", f"{_scheme}://b.test/x", listener=_listener)
        for _proto in ("http", "https", "gopher"):
            table.get(
                f"absolute-{_scheme}-forwarded-{_proto}-{_listener}",
                f"{_scheme}://b.test/x",
                [("X-Forwarded-Proto", _proto)],
                listener=_listener,
            )
    table.get(f"origin-forwarded-https-{_listener}", headers=[("X-Forwarded-Proto", "https")], listener=_listener)
    table.get(f"absolute-other-{_listener}", "ftp://b.test/x", listener=_listener)
table.get("forwarded-port", listener="append-proto")
table.get("forwarded-port-given", headers=[("X-Forwarded-Port", "99")], listener="append-proto")
table.get("forwarded-port-inner", listener="inner-append-port")
