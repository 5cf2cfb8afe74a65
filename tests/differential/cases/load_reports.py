"""CLIENT_SIDE_WEIGHTED_ROUND_ROBIN: weights are compared in ``test_balancing.py``, what passes the proxy here."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route
from tests.differential.case import Table, reply
from tests.differential.cases.zones import extension, group, of

WEIGHTED = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
AT_ONCE = {"blackout_period": "0s", "weight_update_period": "0.1s"}
METRIC = "endpoint-load-metrics"


def load_reports(site: Site) -> Message:
    def reported(name: str, upstreams: str = "abc", **fields: Any) -> Message:
        policy = extension(WEIGHTED, **AT_ONCE, **fields)
        return cluster(site, name, list(upstreams), load_balancing_policy=policy)

    near = group(site, "a", {"zone": "x"}, load_balancing_weight=1)
    far = group(site, "bc", {"zone": "y"}, load_balancing_weight=1)
    by_locality = extension("wrr_locality.v3.WrrLocality", endpoint_picking_policy=extension(WEIGHTED, **AT_ONCE))
    clusters = [
        reported("all"),
        reported("four", "abcd"),
        reported("named", metric_names_for_computing_utilization=["named_metrics.foo", "utilization.bar"]),
        reported("fined", error_utilization_penalty=2.0),
        reported("one", "a"),
        of(site, "by-locality", near, far, load_balancing_policy=by_locality),
    ]
    routes = [route(f"/{one['name']}/", one["name"]) for one in clusters]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"load-reports": load_reports}

table = Table("load-reports", "load-reports")
CASES = table.cases
table.get("in-a-header", "/one/", upstream=reply(headers=[(METRIC, "TEXT cpu_utilization=0.5,rps_fractional=1")]))
table.get("in-json", "/one/", upstream=reply(headers=[(METRIC, 'JSON {"rps_fractional": 1}')]))
table.get("in-bytes", "/one/", upstream=reply(headers=[(f"{METRIC}-bin", "CQAAAAAAAOA/MQAAAAAAACRA")]))
table.get("broken", "/one/", upstream=reply(headers=[(METRIC, "BIN !")]))
table.get("in-a-trailer", "/one/", upstream=reply(chunks=[b"x"], trailers=[(METRIC, "TEXT rps_fractional=1")]))
