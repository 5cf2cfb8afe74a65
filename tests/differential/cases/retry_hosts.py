"""Where retries go: to other priorities than those that were tried, and to other hosts."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, endpoint, listener, manager, route, to
from tests.differential.case import Reply, Table, reply

FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}
PRIORITY = "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"


def priorities(frequency: int) -> Message:
    return {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {"@type": PRIORITY, "update_frequency": frequency},
    }


PREVIOUS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


def policy(retries: int, **fields: Any) -> Message:
    return {"retry_policy": {"retry_on": "5xx", "num_retries": retries, "retry_back_off": FAST, **fields}}


def levels(name: str, *hosts: list[Message], **fields: Any) -> Message:
    """A cluster with these hosts at each priority."""
    given = [{"priority": priority, "lb_endpoints": each} for priority, each in enumerate(hosts)]
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": given},
        **fields,
    }


def retry_hosts(site: Site) -> Message:
    a, b, c = (endpoint(site, name) for name in "abc")
    sick = endpoint(site, "b", health_status="UNHEALTHY")
    routes = [
        route("/each/", to("three", **policy(4, retry_priority=priorities(1)))),
        route("/second/", to("three", **policy(5, retry_priority=priorities(2)))),
        route("/third/", to("three", **policy(4, retry_priority=priorities(3)))),
        route("/sick/", to("sick", **policy(3, retry_priority=priorities(1)))),
        route("/one/", to("one", **policy(2, retry_priority=priorities(1)))),
        route("/hashed/", to("hashed", **policy(4, retry_priority=priorities(1)))),
        route(
            "/priority-and-host/",
            to(
                "pairs",
                **policy(
                    2,
                    retry_priority=priorities(1),
                    retry_host_predicate=[PREVIOUS],
                    host_selection_retry_max_attempts=9,
                ),
            ),
        ),
        route(
            "/previous/",
            to("two", **policy(1, retry_host_predicate=[PREVIOUS], host_selection_retry_max_attempts=30)),
        ),
        route("/only/", to("one", **policy(2, retry_host_predicate=[PREVIOUS], host_selection_retry_max_attempts=3))),
    ]
    return bootstrap(
        site,
        [listener(site, "http", manager(site, routes))],
        [
            levels("one", [a]),
            levels("two", [a, b]),
            levels("three", [a], [b], [c]),
            levels("sick", [a], [sick], [c]),
            levels("hashed", [a], [b], [c], lb_policy="RING_HASH"),
            levels("pairs", [a], [b]),
        ],
    )


BOOTSTRAPS = {"retry_hosts": retry_hosts}

table = Table("retry-hosts", "retry_hosts")
CASES = table.cases
get = table.get

BAD: tuple[Reply, ...] = (reply(503),)

for _path in ("each", "second", "third", "sick", "one", "hashed", "priority-and-host", "only"):
    get(_path, f"/{_path}/", upstream=BAD)
get("each-then-good", "/each/", upstream={"a": BAD, "b": [reply()]})
get("previous", "/previous/", upstream=BAD, spread=True, access_log=False, ignore=("client[0].response[0].body",))
