"""Where connections to upstreams come from (`upstream_bind_config`): seen by a second listener of the same proxy."""

from __future__ import annotations

from collections.abc import Mapping

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    cluster,
    listener,
    manager,
    network_filter,
    route,
    say,
    to,
)
from tests.differential.case import Table

SEEN = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"


def source(address: str, port: int = 0) -> Message:
    return {"address": address, "port_value": port}


def extra(*addresses: str) -> list[Message]:
    return [{"address": source(one)} for one in addresses]


BINDS: Mapping[str, Message] = {
    "nothing": {},
    "v4": {"source_address": source("127.0.0.6")},
    "v4-any": {"source_address": source("0.0.0.0")},
    "v6": {"source_address": source("::1")},
    "v6-any": {"source_address": source("::")},
    "v4-then-v6": {"source_address": source("127.0.0.7"), "extra_source_addresses": extra("::1")},
    "v6-then-v4": {"source_address": source("::1"), "extra_source_addresses": extra("127.0.0.8")},
    "not-ours": {"source_address": source("192.0.2.1")},
    "not-ours-but-free": {"source_address": source("127.0.0.9"), "freebind": True},
}
PLACES = {"to-v4": "127.0.0.1", "to-v6": "::1"}


def source_addresses(site: Site) -> Message:
    logged = {**LOGGED, "from": "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"}
    told = [{"header": {"key": "x-seen", "value": SEEN}}]
    echo = manager(site, [route("/", say(200), response_headers_to_add=told)], access_log=[])
    echo_listener = listener(site, "echo", echo)
    echo_listener["address"] = {
        "socket_address": {"address": "::", "port_value": site.take("echo"), "ipv4_compat": True}
    }
    port = site.take("echo")
    clusters, routes, listeners = [], [], []
    for name, bind in BINDS.items():
        for place, host in PLACES.items():
            where = {"socket_address": {"address": host, "port_value": port}}
            assignment = {
                "cluster_name": f"{name}-{place}",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
            }
            clusters.append(cluster(site, f"{name}-{place}", load_assignment=assignment, upstream_bind_config=bind))
            routes.append(route(f"/{name}-{place}/", to(f"{name}-{place}")))
            tcp = network_filter(
                "tcp_proxy",
                "TcpProxy",
                stat_prefix="tcp",
                cluster=f"{name}-{place}",
                access_log=[access_log(site, logged)],
            )
            listeners.append(listener(site, f"tcp-{name}-{place}", tcp))
    outer = listener(site, "http", manager(site, routes, access_log=[access_log(site, logged)]))
    return bootstrap(site, [outer, echo_listener, *listeners], clusters)


BOOTSTRAPS = {"source-addresses": source_addresses}
table = Table("source-addresses", "source-addresses")
CASES = table.cases
for _name in BINDS:
    for _place in PLACES:
        table.get(f"http-{_name}-{_place}", f"/{_name}-{_place}/")
        table.get(f"tcp-{_name}-{_place}", listener=f"tcp-{_name}-{_place}")
for _name in BINDS:
    table.get(
        f"counted-{_name}",
        f"/stats?filter=cluster.{_name}-to-v4.(bind_errors|upstream_cx_connect_fail|upstream_cx_total|upstream_cx_destroy_.*|upstream_rq_.*)$",
        listener="admin",
        access_log=False,
    )
