"""HTTP filters: fault, rbac, local_ratelimit, cors, header_mutation, health_check and buffer, each on its own bootstrap."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, http_filter, listener, manager, per_filter, route, say, to, virtual_host
from tests.differential.case import AwaitResponses, Close, Delay, ReadBody, Reply, Table, reply, request

ALWAYS = {"numerator": 100}


def fault(site: Site) -> Message:
    def abort(status: int, **percentage: Any) -> Message:
        return {"abort": {"http_status": status, "percentage": percentage or ALWAYS}}

    delay = {"delay": {"fixed_delay": "0.05s", "percentage": ALWAYS}}
    by_header = {
        "abort": {"header_abort": {}, "percentage": ALWAYS},
        "delay": {"header_delay": {}, "percentage": ALWAYS},
        "response_rate_limit": {"header_limit": {}, "percentage": ALWAYS},
    }
    matched = {**abort(418), "headers": [{"name": "x-fault", "string_match": {"exact": "yes"}}]}

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("fault", "HTTPFault", **fields)}

    listeners = {
        "http": {**abort(503)},
        "delay": delay,
        "delay-abort": {**delay, **abort(500)},
        "never": abort(503, numerator=0),
        "by-header": by_header,
        "matched": matched,
        "cluster": {**abort(503), "upstream_cluster": "b"},
        "nodes": {**abort(503), "downstream_nodes": ["known"]},
        "grpc": {"abort": {"grpc_status": 5, "percentage": ALWAYS}},
        "limited": {"response_rate_limit": {"fixed_limit": {"limit_kbps": 10}, "percentage": ALWAYS}},
        "none-at-once": {**abort(503), "max_active_faults": 0},
    }
    routes = [
        route("/b", to("b")),
        route("/own", to("a"), **own(**abort(429))),
        route("/off", to("a"), **own()),
        route("/said", say(200, "said")),
        route("/"),
    ]
    return bootstrap(
        site,
        [listener(site, name, manager(site, routes, filters=[http_filter("fault", "HTTPFault", **fields)])) for name, fields in listeners.items()],
    )  # fmt: skip


def permission_by_path(**match: Any) -> Message:
    return {"url_path": {"path": match}}


ANY: Message = {"any": True}


def policy(permissions: list[Message] | None = None, principals: list[Message] | None = None, **fields: Any) -> Message:
    return {"permissions": permissions or [ANY], "principals": principals or [ANY], **fields}


def header_matcher(name: str, **match: Any) -> Message:
    return {"header": {"name": name, **match}}


def rbac(site: Site) -> Message:
    def rules(action: str = "ALLOW", **policies: Message) -> Message:
        return {"rules": {"action": action, "policies": policies}}

    loopback = {"address_prefix": "127.0.0.0", "prefix_len": 8}
    other = {"address_prefix": "10.0.0.0", "prefix_len": 8}
    exact = {"string_match": {"exact": "yes"}}
    listeners: dict[str, Message] = {
        "http": rules(nothing=policy([permission_by_path(exact="/never")])),
        "deny": rules("DENY", secret=policy([permission_by_path(prefix="/secret")])),
        "log": rules("LOG", all=policy()),
        "no-policies": rules(),
        "no-rules": {},
        "permissions": rules(
            header=policy([header_matcher("x-may", **exact)]),
            path=policy([permission_by_path(exact="/path")]),
            regex=policy([permission_by_path(safe_regex={"regex": "/regex/[0-9]+"})]),
            port=policy([{"and_rules": {"rules": [permission_by_path(prefix="/port"), {"destination_port_range": {"start": 1, "end": 65536}}]}}]),
            other_port=policy([{"and_rules": {"rules": [permission_by_path(prefix="/p99"), {"destination_port": 99}]}}]),
            ip=policy([{"and_rules": {"rules": [permission_by_path(prefix="/ip"), {"destination_ip": loopback}]}}]),
            other_ip=policy([{"and_rules": {"rules": [permission_by_path(prefix="/other-ip"), {"destination_ip": other}]}}]),
            either=policy([{"or_rules": {"rules": [permission_by_path(exact="/one"), permission_by_path(exact="/two")]}}]),
            inverted=policy([{"and_rules": {"rules": [permission_by_path(prefix="/not"), {"not_rule": header_matcher("x-no", present_match=True)}]}}]),
            server=policy([{"and_rules": {"rules": [permission_by_path(prefix="/sni"), {"requested_server_name": {"exact": ""}}]}}]),
            metadata=policy([{"and_rules": {"rules": [permission_by_path(prefix="/metadata"), {"metadata": {"filter": "none", "path": [{"key": "x"}], "value": {"present_match": True}}}]}}]),
            method=policy([{"and_rules": {"rules": [permission_by_path(prefix="/method"), header_matcher(":method", string_match={"exact": "PUT"})]}}]),
        ),
        "principals": rules(
            direct=policy([permission_by_path(prefix="/direct")], [{"direct_remote_ip": loopback}]),
            remote=policy([permission_by_path(prefix="/remote")], [{"remote_ip": other}]),
            source=policy([permission_by_path(prefix="/source")], [{"direct_remote_ip": other}]),
            header=policy([permission_by_path(prefix="/header")], [header_matcher("x-who", **exact)]),
            path=policy([permission_by_path(prefix="/url")], [{"url_path": {"path": {"suffix": "/end"}}}]),
            both=policy([permission_by_path(prefix="/both")], [{"and_ids": {"ids": [header_matcher("x-a", **exact), header_matcher("x-b", **exact)]}}]),
            either=policy([permission_by_path(prefix="/either")], [{"or_ids": {"ids": [header_matcher("x-a", **exact), header_matcher("x-b", **exact)]}}]),
            inverted=policy([permission_by_path(prefix="/not")], [{"not_id": header_matcher("x-a", **exact)}]),
            tls=policy([permission_by_path(prefix="/tls")], [{"authenticated": {}}]),
        ),
        "shadow": {**rules(all=policy()), "shadow_rules": {"policies": {"some": policy([permission_by_path(exact="/x")])}}},
        "shadow-only": {"shadow_rules": {"policies": {"some": policy([permission_by_path(exact="/x")])}}},
        "conditional": rules(only=policy([permission_by_path(prefix="/")])),
    }  # fmt: skip

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("rbac", "RBACPerRoute", **fields)}

    routes = [
        route("/own-allowed", to("a"), **own(rbac=rules(all=policy()))),
        route("/own-denied", to("a"), **own(rbac=rules("DENY", all=policy()))),
        route("/own-off", to("a"), **own()),
        route("/disabled", to("a"), typed_per_filter_config={"envoy.filters.http.rbac": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}),
        route("/"),
    ]  # fmt: skip
    addresses = {"use_remote_address": True, "xff_num_trusted_hops": 1}
    return bootstrap(
        site,
        [
            listener(site, name, manager(site, routes, filters=[http_filter("rbac", "RBAC", **fields)], **addresses))
            for name, fields in listeners.items()
        ],
    )


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
        "with-headers": {**bucket(1), **enforced, "response_headers_to_add": added, "enable_x_ratelimit_headers": "DRAFT_VERSION_03"},
        "other-status": {**bucket(1), **enforced, "status": {"code": "ServiceUnavailable"}},
        "grpc": {**bucket(1), **enforced, "rate_limited_as_resource_exhausted": True},
        "per-connection": {**bucket(1), **enforced, "local_rate_limit_per_downstream_connection": True},
        "descriptors": {
            **bucket(100),
            **enforced,
            "descriptors": [{"entries": [{"key": "path", "value": "/one"}], **bucket(1)}, {"entries": [{"key": "who", "value": "me"}], **bucket(2)}],
        },
    }  # fmt: skip
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
            listener(site, name, manager(site, routes, filters=[http_filter("local_ratelimit", "LocalRateLimit", **fields)]))
            for name, fields in listeners.items()
        ],
    )


def cors(site: Site) -> Message:
    full = {
        "allow_origin_string_match": [{"exact": "http://good.test"}, {"suffix": ".fine.test"}, {"safe_regex": {"regex": "http://r[0-9]+\\.test"}}],
        "allow_methods": "GET, PUT",
        "allow_headers": "x-one, x-two",
        "expose_headers": "x-seen",
        "max_age": "600",
        "allow_credentials": True,
    }  # fmt: skip

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("cors", "CorsPolicy", **fields)}

    routes = [
        route("/full", to("a"), **own(**full)),
        route("/star", to("a"), **own(allow_origin_string_match=[{"prefix": "http"}], allow_methods="*")),
        route("/private", to("a"), **own(**full, allow_private_network_access=True)),
        route("/forward", to("a"), **own(**full, forward_not_matching_preflights=False)),
        route("/off", to("a"), **own(**full, filter_enabled={"default_value": {"numerator": 0}})),
        route("/shadow", to("a"), **own(**full, filter_enabled={"default_value": {"numerator": 0}}, shadow_enabled={"default_value": ALWAYS})),
        route("/"),
    ]
    hosts = [virtual_host("host", ["host.test"], [route("/")], **own(**full)), virtual_host("all", ["*"], routes)]
    return bootstrap(site, [listener(site, "http", manager(site, hosts=hosts, filters=[http_filter("cors", "Cors")]))])


def header_mutation(site: Site) -> Message:
    def append(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Message:
        return {"append": {"header": {"key": key, "value": value}, "append_action": action}}

    def mutations(level: str) -> Message:
        both = [
            {"remove": "x-removed"},
            append("x-appended", level),
            append("x-added", level, "ADD_IF_ABSENT"),
            append("x-set", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
            append("x-only", level, "OVERWRITE_IF_EXISTS"),
        ]
        return {"mutations": {"request_mutations": [*both, append("x-path", "%REQ(:PATH)%")], "response_mutations": [*both, append("x-code", "%RESPONSE_CODE%")]}}  # fmt: skip

    def own(level: str) -> Message:
        return {"typed_per_filter_config": per_filter("header_mutation", "HeaderMutationPerRoute", **mutations(level))}

    filters = [http_filter("header_mutation", "HeaderMutation", **mutations("filter"))]
    specific = [http_filter("header_mutation", "HeaderMutation", **mutations("filter"), most_specific_header_mutations_wins=True)]
    routes = [route("/own", to("a"), **own("route")), route("/said", say(200, "said")), route("/")]
    hosts = [virtual_host("host", ["host.test"], routes, **own("host")), virtual_host("all", ["*"], routes)]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts, filters=filters)),
            listener(site, "specific", manager(site, hosts=hosts, filters=specific)),
        ],
    )


def health_check(site: Site) -> Message:
    at_health = [{"name": ":path", "string_match": {"exact": "/health"}}]
    listeners: dict[str, Message] = {
        "http": {"pass_through_mode": False, "headers": at_health},
        "pass": {"pass_through_mode": True, "headers": at_health},
        "cached": {"pass_through_mode": True, "cache_time": "60s", "headers": at_health},
        "percentages": {"pass_through_mode": False, "headers": at_health, "cluster_min_healthy_percentages": {"a": {"value": 50}, "empty": {"value": 0}}},
        "percentages-missing": {"pass_through_mode": False, "headers": at_health, "cluster_min_healthy_percentages": {"nowhere": {"value": 50}}},
        "percentages-empty": {"pass_through_mode": False, "headers": at_health, "cluster_min_healthy_percentages": {"empty": {"value": 50}}},
        "two-headers": {"pass_through_mode": False, "headers": [*at_health, {"name": "x-check", "present_match": True}]},
    }  # fmt: skip
    return bootstrap(
        site,
        [listener(site, name, manager(site, filters=[http_filter("health_check", "HealthCheck", **fields)])) for name, fields in listeners.items()],
    )  # fmt: skip


def buffer(site: Site) -> Message:
    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("buffer", "BufferPerRoute", **fields)}

    routes = [route("/off", to("a"), **own(disabled=True)), route("/more", to("a"), **own(buffer={"max_request_bytes": 2000})), route("/")]
    filters = [http_filter("buffer", "Buffer", max_request_bytes=1000)]
    return bootstrap(site, [listener(site, "http", manager(site, routes, filters=filters))])


BOOTSTRAPS = {
    "fault": fault,
    "rbac": rbac,
    "local-ratelimit": local_ratelimit,
    "cors": cors,
    "header-mutation": header_mutation,
    "health-check": health_check,
    "buffer": buffer,
}
CASES = []

table = Table("fault", "fault")
CASES += [table.cases]
for _listener in ("http", "delay", "delay-abort", "never", "matched", "cluster", "nodes", "grpc", "none-at-once", "by-header", "limited"):
    table.get(_listener, listener=_listener)
table.get("matched-by-header", headers=[("X-Fault", "yes")], listener="matched")
table.get("cluster-other", "/b", listener="cluster")
table.get("node-known", headers=[("x-envoy-downstream-service-node", "known")], listener="nodes")
table.get("route-own", "/own")
table.get("route-off", "/off")
table.get("direct-response", "/said")
table.get("head", method="HEAD")
table.get("post", method="POST", body=b"body", listener="delay")
table.get("grpc-request", headers=[("Content-Type", "application/grpc")], method="POST", listener="grpc")
table.get("abort-header", headers=[("x-envoy-fault-abort-request", "429")], listener="by-header")
table.get("abort-header-out-of-range", headers=[("x-envoy-fault-abort-request", "999")], listener="by-header")
table.get("abort-header-bad", headers=[("x-envoy-fault-abort-request", "soon")], listener="by-header")
table.get("abort-header-percentage", headers=[("x-envoy-fault-abort-request", "429"), ("x-envoy-fault-abort-request-percentage", "0")], listener="by-header")  # fmt: skip
table.get("abort-header-grpc", headers=[("x-envoy-fault-abort-grpc-request", "5")], listener="by-header")
table.get("delay-header", headers=[("x-envoy-fault-delay-request", "20")], listener="by-header")
table.get("delay-header-bad", headers=[("x-envoy-fault-delay-request", "later")], listener="by-header")
table.get("throughput-header", headers=[("x-envoy-fault-throughput-response", "1000")], listener="by-header")
table.get("limited-body", listener="limited", upstream=reply(body=b"x" * 2000))

table = Table("rbac", "rbac")
CASES += [table.cases]
for _listener in ("http", "log", "no-policies", "no-rules", "shadow", "shadow-only", "conditional"):
    table.get(_listener, listener=_listener)
for _path in ("/never", "/own-allowed", "/own-denied", "/own-off", "/disabled"):
    table.get(f"route-{_path}", _path)
for _path in ("/secret/x", "/", "/Secret"):
    table.get(f"deny-{_path}", _path, listener="deny")
for _path in ("/path", "/path?x=1", "/path/x", "/regex/12", "/regex/12?y", "/regex/x", "/port", "/p99", "/ip", "/other-ip", "/one", "/two", "/three", "/not", "/sni", "/metadata", "/method"):  # fmt: skip
    table.get(f"permission-{_path}", _path, listener="permissions")
table.get("permission-header", headers=[("X-May", "yes")], listener="permissions")
table.get("permission-header-other", headers=[("X-May", "no")], listener="permissions")
table.get("permission-not-with-header", "/not", [("X-No", "1")], listener="permissions")
table.get("permission-method-put", "/method", method="PUT", listener="permissions")
for _path in ("/direct", "/remote", "/source", "/header", "/url/end", "/url/middle", "/both", "/either", "/not", "/tls"):
    table.get(f"principal-{_path}", _path, listener="principals")
    table.get(f"principal-{_path}-with-headers", _path, [("X-A", "yes"), ("X-Who", "yes"), ("X-Forwarded-For", "10.1.1.1")], listener="principals")
table.get("principal-both-with-both", "/both", [("X-A", "yes"), ("X-B", "yes")], listener="principals")
table.get("post-denied", method="POST", body=b"body")
table.get("head-denied", method="HEAD")
table.get("grpc-denied", headers=[("Content-Type", "application/grpc")], method="POST", body=b"x")

table = Table("local-ratelimit", "local-ratelimit")
CASES += [table.cases]
TWICE = (request("GET", "/"), AwaitResponses(1), request("GET", "/"))
for _listener in ("http", "not-enforced", "not-enabled", "with-headers", "other-status", "per-connection"):
    table.add(_listener, *TWICE, listener=_listener)
table.add("per-connection-again", *TWICE, listener="per-connection")
GRPC = request("POST", "/", [("Content-Type", "application/grpc")], body=b"x")
table.add("grpc", GRPC, AwaitResponses(1), GRPC, listener="grpc")
table.add("route-own", *(request("GET", "/own") for _ in range(1)), AwaitResponses(1), request("GET", "/own"), AwaitResponses(2), request("GET", "/own"))  # fmt: skip
table.add("descriptor-path", request("GET", "/one"), AwaitResponses(1), request("GET", "/one"), listener="descriptors")
table.add("descriptor-other", request("GET", "/two"), AwaitResponses(1), request("GET", "/two"), listener="descriptors")
table.add("descriptor-header", *[step for number in range(3) for step in (request("GET", "/x", [("X-Who", "me")]), AwaitResponses(number + 1))], listener="descriptors")  # fmt: skip

table = Table("cors", "cors")
CASES += [table.cases]
PREFLIGHT = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-one")]
for _path in ("/full", "/star", "/private", "/forward", "/off", "/shadow", "/none"):
    for _name, _origin in (("good", "http://good.test"), ("suffix", "http://x.fine.test"), ("regex", "http://r12.test"), ("bad", "http://bad.test")):
        if _path not in ("/full", "/star") and _name in ("suffix", "regex"):
            continue
        table.get(f"simple-{_name}-{_path}", _path, [("Origin", _origin)])
        table.get(f"preflight-{_name}-{_path}", _path, [("Origin", _origin), *PREFLIGHT], method="OPTIONS")
table.get("no-origin", "/full")
table.get("preflight-without-method", "/full", [("Origin", "http://good.test")], method="OPTIONS")
table.get("preflight-private-network", "/private", [("Origin", "http://good.test"), *PREFLIGHT, ("Access-Control-Request-Private-Network", "true")], method="OPTIONS")  # fmt: skip
table.get("host-level", "/x", [("Origin", "http://good.test")], host="host.test")
table.get("empty-origin", "/full", [("Origin", "")])
table.get("upstream-own-headers", "/full", [("Origin", "http://good.test")], upstream=reply(headers=[("access-control-allow-origin", "*"), ("access-control-expose-headers", "x-up")]))  # fmt: skip

table = Table("header-mutation", "header-mutation")
CASES += [table.cases]
GIVEN = [("X-Removed", "1"), ("X-Appended", "given"), ("X-Added", "given"), ("X-Set", "given"), ("X-Only", "given")]
for _listener in ("http", "specific"):
    for _host in ("a.test", "host.test"):
        for _path in ("/own", "/said", "/"):
            table.get(f"{_path}-{_host}-{_listener}", _path, GIVEN, host=_host, listener=_listener, upstream=reply(headers=GIVEN))
table.get("nothing-given", "/own")
table.get("local-reply", "/", upstream=Reply((ReadBody(), Close())))

table = Table("health-check", "health-check")
CASES += [table.cases]
for _listener in ("http", "pass", "percentages", "percentages-missing", "percentages-empty", "two-headers"):
    table.get(f"{_listener}-health", "/health", listener=_listener)
    table.get(f"{_listener}-other", "/other", listener=_listener)
table.get("query", "/health?x=1")
table.get("two-headers-both", "/health", [("X-Check", "1")], listener="two-headers")
table.get("head", "/health", method="HEAD")
table.get("pass-fails", "/health", listener="pass", upstream=reply(503))
table.add("cached-twice", request("GET", "/health"), AwaitResponses(1), request("GET", "/health"), listener="cached", upstream=reply(200))

table = Table("buffer", "buffer")
CASES += [table.cases]
for _size in (0, 999, 1000, 1001, 5000):
    table.get(f"size-{_size}", method="POST", body=b"x" * _size)
    table.add(f"chunked-{_size}", request("POST", "/", chunks=[b"x" * _size] if _size else []))
table.get("off", "/off", method="POST", body=b"x" * 5000)
table.get("more", "/more", method="POST", body=b"x" * 1500)
table.get("more-too-large", "/more", method="POST", body=b"x" * 2500)
table.get("expect", "/", [("Expect", "100-continue")], method="POST", body=b"x" * 10)
table.add("trailers", request("POST", "/", chunks=[b"x" * 10], trailers=[("X-Sum", "1")]))
table.add("slow-upstream", request("POST", "/", chunks=[b"x"]), upstream=Reply((ReadBody(), Delay(0.03), *reply().steps)))

CASES = [case for cases in CASES for case in cases]
