"""What rbac filters count and leave in metadata: prefixes, single policies, routes' own rules, shadow rules, LOG, and the
network filter's.
"""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    network_filter,
    per_filter,
    route,
    to,
)
from tests.differential.case import AwaitBytes, Send, Table
from tests.differential.cases.rbac import permission_by_path, policy

_HTTP = {
    **LOGGED,
    "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
    "hint": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
}
_NETWORK = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "rbac": "%DYNAMIC_METADATA(envoy.filters.network.rbac)%",
    "hint": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
}


def statistics(site: Site) -> Message:
    def fits(path: str) -> Message:
        return policy([permission_by_path(prefix=path)])

    rules = {"policies": {"pa": fits("/a"), "p b.c": fits("/b"), "ns[x]-policy[y]-rule[0]": fits("/c")}}
    both = {
        "rules": rules,
        "shadow_rules": {"action": "DENY", "policies": {"sa": fits("/a")}},
        "track_per_rule_stats": True,
    }
    own = {"rules": {"policies": {"own": fits("/a")}}, "rules_stat_prefix": "own", "track_per_rule_stats": True}
    watched = {
        "rules": {"policies": {"own": fits("/d")}},
        "shadow_rules": {"policies": {"watched": fits("/d")}},
        "shadow_rules_stat_prefix": "watching_",
    }
    logging = {"action": "LOG", "policies": {"logged": fits("/a")}}

    def http(name: str, *routes: Message, **fields: Any) -> Message:
        filters = [http_filter("rbac", "RBAC", **fields)]
        chain = manager(
            site,
            [*routes, route("/", to("a"))],
            filters=filters,
            stat_prefix=name,
            access_log=[access_log(site, _HTTP)],
        )
        return listener(site, name, chain)

    def per_route(path: str, rbac: Message) -> Message:
        return route(path, to("a"), typed_per_filter_config=per_filter("rbac", "RBACPerRoute", rbac=rbac))

    def network(name: str, **fields: Any) -> Message:
        return listener(
            site,
            name,
            network_filter("rbac", "RBAC", stat_prefix=name, **fields),
            network_filter(
                "tcp_proxy", "TcpProxy", stat_prefix="tcp", cluster="a", access_log=[access_log(site, _NETWORK)]
            ),
        )

    anybody = policy()
    nobody = policy([{"destination_port": 1}])
    return bootstrap(
        site,
        [
            http("plain", **both),
            http("prefixed", **both, rules_stat_prefix="rp.", shadow_rules_stat_prefix="sp_"),
            http("routes", per_route("/a", own), per_route("/d", watched), **both),
            http("logging", rules=logging, shadow_rules=logging, track_per_rule_stats=True),
            network(
                "allowed",
                rules={"policies": {"x": anybody}},
                shadow_rules={"action": "DENY", "policies": {"y": anybody}},
                shadow_rules_stat_prefix="sp_",
            ),
            network("watched", shadow_rules={"policies": {"y": nobody}}),
            network("logged", rules={"action": "LOG", "policies": {"x": anybody}}),
        ],
    )


BOOTSTRAPS = {"rbac-statistics": statistics}

table = Table("rbac-statistics", "rbac-statistics")
CASES = table.cases
for _listener in ("plain", "prefixed", "routes", "logging"):
    for _path in ("/a", "/b", "/c", "/d", "/z"):
        table.get(f"{_listener}{_path}", _path, listener=_listener)
for _listener in ("allowed", "watched", "logged"):
    table.raw(
        _listener,
        Send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"),
        AwaitBytes(b"from a"),
        listener=_listener,
        upstream_requests=1,
    )
