"""The path and the host before routing: normalisation, slashes, escapes, ports, and underscores in names."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say, to
from tests.differential.case import Table, reply

LISTENERS: dict[str, dict[str, Any]] = {
    "normalized": {"normalize_path": True},
    "merged": {"merge_slashes": True},
    "both": {"normalize_path": True, "merge_slashes": True},
    "keep": {"path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "reject": {"path_with_escaped_slashes_action": "REJECT_REQUEST"},
    "unescape-redirect": {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
    "unescape-forward": {"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
    "unescape-both": {
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "normalize_path": True,
        "merge_slashes": True,
    },
    "strip-matching": {"strip_matching_host_port": True},
    "strip-any": {"strip_any_host_port": True},
    "strip-dot": {"strip_trailing_host_dot": True},
    "underscores-reject": {"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}},
    "underscores-drop": {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
    "http": {},
}


def paths(site: Site) -> Message:
    routes = [route("/secret", say(403, "secret")), route("/a/b", to("b")), route("/")]
    return bootstrap(
        site, [listener(site, name, manager(site, routes, **options)) for name, options in LISTENERS.items()]
    )


BOOTSTRAPS = {"paths": paths}

table = Table("paths", "paths")
CASES = table.cases

TARGETS = (
    "/a//b",
    "/a/./b",
    "/a/../secret",
    "/a/%2e%2e/secret",
    "/a/.%2E/secret",
    "//secret",
    "/secret/",
    "/a/b/..",
    "/..",
    "/../../x",
    "/a/..;/b",
    "/%61/b",
    "/%41%7e%2d",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a%5C..%5csecret",
    "/a\\b",
    "/a\\..\\secret",
    "/a%00b",
    "/a%zz",
    "/a?x=/../b//c",
    "/a%3Fb",
    "/a%20b",
    "/a//?q=1",
    "///",
    "/a#frag",
    "/a/b//../secret",
    "/%2e%2e/secret",
    "/a|b",
    "/a%7Cb",
    "/caf%c3%a9",
    "/a%25%32%66b",
    "/a%2f..%2fsecret",
    "/x/%2f/secret",
)
for _listener in (
    "http",
    "normalized",
    "merged",
    "both",
    "keep",
    "reject",
    "unescape-redirect",
    "unescape-forward",
    "unescape-both",
):
    for _target in TARGETS:
        if _listener in ("http", "merged") and _target not in TARGETS[:14]:
            continue
        if _listener in ("keep", "reject", "unescape-redirect") and "%" not in _target:
            continue
        table.get(f"{_target}-{_listener}", _target, listener=_listener)
table.get("asterisk-normalized", "*", listener="normalized", method="OPTIONS")
table.get("absolute-normalized", "http://b.test/a/../secret", listener="normalized")
table.get("redirect-keeps-query", "/a%2fb?x=%2f", listener="unescape-redirect")
table.get("redirect-post", "/a%2fb", listener="unescape-redirect", method="POST", body=b"x")
for _listener in ("strip-matching", "strip-any", "strip-dot"):
    for _host in ("a.test", "a.test:80", "a.test:8080", "[::1]:80", "a.test.", "a.test.:80", "a.test:", "[::1]"):
        table.get(f"host-{_host}-{_listener}", host=_host, listener=_listener)
for _listener in ("http", "underscores-reject", "underscores-drop"):
    table.get(f"underscore-{_listener}", headers=[("x_under", "1"), ("x-dash", "2")], listener=_listener)
    table.get(f"underscore-response-{_listener}", listener=_listener, upstream=reply(headers=[("x_under", "1")]))
