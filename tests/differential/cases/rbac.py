"""The rbac filter: every permission and principal that exists without TLS, shadow rules, and settings of routes."""

from __future__ import annotations

from typing import Any

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
from tests.differential.case import Table


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
            port=policy(
                [
                    {
                        "and_rules": {
                            "rules": [
                                permission_by_path(prefix="/port"),
                                {"destination_port_range": {"start": 1, "end": 65536}},
                            ]
                        }
                    }
                ]
            ),
            other_port=policy(
                [{"and_rules": {"rules": [permission_by_path(prefix="/p99"), {"destination_port": 99}]}}]
            ),
            ip=policy([{"and_rules": {"rules": [permission_by_path(prefix="/ip"), {"destination_ip": loopback}]}}]),
            other_ip=policy(
                [{"and_rules": {"rules": [permission_by_path(prefix="/other-ip"), {"destination_ip": other}]}}]
            ),
            either=policy(
                [{"or_rules": {"rules": [permission_by_path(exact="/one"), permission_by_path(exact="/two")]}}]
            ),
            inverted=policy(
                [
                    {
                        "and_rules": {
                            "rules": [
                                permission_by_path(prefix="/not"),
                                {"not_rule": header_matcher("x-no", present_match=True)},
                            ]
                        }
                    }
                ]
            ),
            server=policy(
                [
                    {
                        "and_rules": {
                            "rules": [permission_by_path(prefix="/sni"), {"requested_server_name": {"exact": ""}}]
                        }
                    }
                ]
            ),
            metadata=policy(
                [
                    {
                        "and_rules": {
                            "rules": [
                                permission_by_path(prefix="/metadata"),
                                {
                                    "metadata": {
                                        "filter": "none",
                                        "path": [{"key": "x"}],
                                        "value": {"present_match": True},
                                    }
                                },
                            ]
                        }
                    }
                ]
            ),
            method=policy(
                [
                    {
                        "and_rules": {
                            "rules": [
                                permission_by_path(prefix="/method"),
                                header_matcher(":method", string_match={"exact": "PUT"}),
                            ]
                        }
                    }
                ]
            ),
        ),
        "principals": rules(
            direct=policy([permission_by_path(prefix="/direct")], [{"direct_remote_ip": loopback}]),
            remote=policy([permission_by_path(prefix="/remote")], [{"remote_ip": other}]),
            source=policy([permission_by_path(prefix="/source")], [{"direct_remote_ip": other}]),
            header=policy([permission_by_path(prefix="/header")], [header_matcher("x-who", **exact)]),
            path=policy([permission_by_path(prefix="/url")], [{"url_path": {"path": {"suffix": "/end"}}}]),
            both=policy(
                [permission_by_path(prefix="/both")],
                [{"and_ids": {"ids": [header_matcher("x-a", **exact), header_matcher("x-b", **exact)]}}],
            ),
            either=policy(
                [permission_by_path(prefix="/either")],
                [{"or_ids": {"ids": [header_matcher("x-a", **exact), header_matcher("x-b", **exact)]}}],
            ),
            inverted=policy([permission_by_path(prefix="/not")], [{"not_id": header_matcher("x-a", **exact)}]),
            tls=policy([permission_by_path(prefix="/tls")], [{"authenticated": {}}]),
        ),
        "shadow": {
            **rules(all=policy()),
            "shadow_rules": {"policies": {"some": policy([permission_by_path(exact="/x")])}},
        },
        "shadow-only": {"shadow_rules": {"policies": {"some": policy([permission_by_path(exact="/x")])}}},
        "conditional": rules(only=policy([permission_by_path(prefix="/")])),
    }

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("rbac", "RBACPerRoute", **fields)}

    routes = [
        route("/own-allowed", to("a"), **own(rbac=rules(all=policy()))),
        route("/own-denied", to("a"), **own(rbac=rules("DENY", all=policy()))),
        route("/own-off", to("a"), **own()),
        route(
            "/disabled",
            to("a"),
            typed_per_filter_config={
                "envoy.filters.http.rbac": {
                    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                    "disabled": True,
                }
            },
        ),
        route("/"),
    ]
    addresses: Message = {"use_remote_address": True, "xff_num_trusted_hops": 1}
    return bootstrap(
        site,
        [
            listener(site, name, manager(site, routes, filters=[http_filter("rbac", "RBAC", **fields)], **addresses))
            for name, fields in listeners.items()
        ],
    )


BOOTSTRAPS = {"rbac": rbac}

table = Table("rbac", "rbac")
CASES = table.cases
for _listener in ("http", "log", "no-policies", "no-rules", "shadow", "shadow-only", "conditional"):
    table.get(_listener, listener=_listener)
for _path in ("/never", "/own-allowed", "/own-denied", "/own-off", "/disabled"):
    table.get(f"route-{_path}", _path)
for _path in ("/secret/x", "/", "/Secret"):
    table.get(f"deny-{_path}", _path, listener="deny")
for _path in (
    "/path",
    "/path?x=1",
    "/path/x",
    "/regex/12",
    "/regex/12?y",
    "/regex/x",
    "/port",
    "/p99",
    "/ip",
    "/other-ip",
    "/one",
    "/two",
    "/three",
    "/not",
    "/sni",
    "/metadata",
    "/method",
):
    table.get(f"permission-{_path}", _path, listener="permissions")
table.get("permission-header", headers=[("X-May", "yes")], listener="permissions")
table.get("permission-header-other", headers=[("X-May", "no")], listener="permissions")
table.get("permission-not-with-header", "/not", [("X-No", "1")], listener="permissions")
table.get("permission-method-put", "/method", method="PUT", listener="permissions")
for _path in (
    "/direct",
    "/remote",
    "/source",
    "/header",
    "/url/end",
    "/url/middle",
    "/both",
    "/either",
    "/not",
    "/tls",
):
    table.get(f"principal-{_path}", _path, listener="principals")
    table.get(
        f"principal-{_path}-with-headers",
        _path,
        [("X-A", "yes"), ("X-Who", "yes"), ("X-Forwarded-For", "10.1.1.1")],
        listener="principals",
    )
table.get("principal-both-with-both", "/both", [("X-A", "yes"), ("X-B", "yes")], listener="principals")
table.get("post-denied", method="POST", body=b"body")
table.get("head-denied", method="HEAD")
table.get("grpc-denied", headers=[("Content-Type", "application/grpc")], method="POST", body=b"x")
