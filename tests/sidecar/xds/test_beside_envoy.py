"""The same server drives real Envoy and our sidecar through the same changes: what it is asked is the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.pool.asking import over_http2
from tests.sidecar.xds.resources import OVER_ADS, assignment, eds_cluster, listener, routes
from tests.sidecar.xds.world import World

Step = Callable[[World], Awaitable[None]]

_STATISTICS = re.compile(
    r"(?:cluster_manager\.cds|listener_manager\.lds|control_plane|cluster\.c|http\.l2\.rds\.r2)\."
    r"(?:update_(?:attempt|success|failure|rejected)|version|version_text|connected_state|identifier|init_fetch_timeout"
    r"|rate_limit_enforced): .*"
)
"""Those of subscriptions, but for times."""


def world() -> World:
    """Two clusters with endpoints, two listeners with routes."""
    return World(
        {
            CLUSTER: {name: eds_cluster(name) for name in "ba"},
            CLUSTER_LOAD_ASSIGNMENT: {name: assignment(name, 80) for name in "ab"},
            LISTENER: {"l1": listener("l1", "r1"), "l2": listener("l2", "r2")},
            ROUTE_CONFIGURATION: {"r1": routes("r1", "a"), "r2": routes("r2", "b")},
        }
    )


async def add_clusters(made: World) -> None:
    made.resources[CLUSTER_LOAD_ASSIGNMENT].update(c=assignment("c", 81), d=assignment("d", 82))
    await made.set(CLUSTER, {"c": eds_cluster("c"), "d": eds_cluster("d")})


async def add_a_cluster_whose_endpoints_come_later(made: World) -> None:
    before = len(made.asked)
    await made.set(CLUSTER, {"e": eds_cluster("e")})
    key = (made.conversation.number, CLUSTER_LOAD_ASSIGNMENT)
    # that there are none yet has been heard; until they come, Envoy does not acknowledge the cluster
    await made.until(lambda: len(made.asked) >= before + 2 and "e" in made.wanted[key] and key not in made.said)
    await made.set(CLUSTER_LOAD_ASSIGNMENT, {"e": assignment("e", 83)})


async def remove_a_cluster(made: World) -> None:
    await made.set(CLUSTER, {}, ["a"])


async def change_a_cluster(made: World) -> None:
    await made.set(CLUSTER, {"b": eds_cluster("b", connect_timeout="2s")})
    await made.set(CLUSTER_LOAD_ASSIGNMENT, {"b": assignment("b", 84)})


async def one_of_two_is_bad(made: World) -> None:
    made.resources[CLUSTER_LOAD_ASSIGNMENT]["f"] = assignment("f", 85)
    bad = eds_cluster("bad")
    bad.ClearField("eds_cluster_config")
    await made.set(CLUSTER, {"bad": bad, "f": eds_cluster("f")})


async def remove_the_bad_one(made: World) -> None:
    # Envoy has applied the good one, but of deltas that it refuses it notes no versions: so it is said again
    await made.set(CLUSTER, {"f": eds_cluster("f")}, ["bad"])


async def change_routes(made: World) -> None:
    await made.set(ROUTE_CONFIGURATION, {"r1": routes("r1", "b")})


async def add_a_listener_whose_routes_come_later(made: World) -> None:
    await made.set(LISTENER, {"l3": listener("l3", "r3")})


async def routes_come(made: World) -> None:
    await made.set(ROUTE_CONFIGURATION, {"r3": routes("r3", "b")})


async def bad_routes(made: World) -> None:
    await made.set(ROUTE_CONFIGURATION, {"r2": routes("r2", "b", "*.*.example")})


async def good_routes(made: World) -> None:
    await made.set(ROUTE_CONFIGURATION, {"r2": routes("r2", "c")})


async def end_the_stream(made: World) -> None:
    await made.conversation.end()


async def restart_the_server(made: World) -> None:
    await made.stop()
    await made.start()


STEPS: list[tuple[Step, int]] = [
    (add_clusters, 3),
    (add_a_cluster_whose_endpoints_come_later, 4),
    (remove_a_cluster, 2),
    (change_a_cluster, 2),
    (one_of_two_is_bad, 3),
    (remove_the_bad_one, 1),
    (change_routes, 1),
    (add_a_listener_whose_routes_come_later, 3),
    (routes_come, 1),
    (bad_routes, 1),
    (good_routes, 1),
    (end_the_stream, 8),
    (restart_the_server, 8),
]
"""What happens, and how many requests at least follow."""


async def transcript(kind: str, api_type: str, directory: Path, node_once: bool) -> tuple[list[str], list[str]]:
    """What the server is asked, step by step, and the statistics at the end."""
    async with world() as made:
        server = {
            "api_type": api_type,
            "transport_api_version": "V3",
            "set_node_on_first_message_only": node_once,
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }
        ports = {"admin": FreePorts().take()}
        bootstrap = {
            "node": {"id": "it", "cluster": "us"},
            "admin": {"address": address(ports["admin"])},
            "static_resources": {"clusters": [over_http2(cluster("xds", made.port))]},
            "dynamic_resources": {"ads_config": server, "cds_config": OVER_ADS, "lds_config": OVER_ADS},
        }
        proxy: Proxy = await asyncio.to_thread(start, kind, bootstrap, ports, directory)
        try:
            lines = ["start", *await made.settled(8)]
            for step, number in STEPS:
                before = len(made.asked)
                await step(made)
                found = await made.settled(before + number)
                lines += [step.__name__, *found[before:]]
            _, _, stats = await asyncio.to_thread(proxy.admin, "/stats")
            return lines, _STATISTICS.findall(stats)
        finally:
            await asyncio.to_thread(proxy.stop)


def by_type(lines: list[str]) -> dict[str, list[str]]:
    """What is asked of each type, in order. How the types' requests interleave is nobody's business, but for first ones."""
    found: dict[str, list[str]] = {"first": []}
    seen = set()
    for line in lines:
        number, _, rest = line.partition(" ")
        if not rest:
            continue
        type_name = rest.partition(" ")[0]
        found.setdefault(type_name, []).append(line.removesuffix(" node"))
        if (number, type_name) not in seen:
            seen.add((number, type_name))
            found["first"].append(line)
    return found


def differences(envoys: dict[str, list[str]], ours: dict[str, list[str]]) -> list[str]:
    """The lines that only one of the two has: Envoy's after a minus, ours after a plus."""
    return [
        line
        for kind in sorted({*envoys, *ours})
        for line in unified_diff(envoys.get(kind, []), ours.get(kind, []), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]


@pytest.mark.parametrize(
    ("api_type", "node_once"), [("GRPC", False), ("GRPC", True), ("DELTA_GRPC", False), ("DELTA_GRPC", True)]
)
async def test_what_the_server_is_asked(api_type: Any, node_once: bool, tmp_path: Path) -> None:
    try:
        envoys, envoys_statistics = await transcript(ENVOY, api_type, tmp_path / "envoy", node_once)
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    ours, our_statistics = await transcript(SIDECAR, api_type, tmp_path / "sidecar", node_once)
    assert differences(by_type(envoys), by_type(ours)) == []
    twice = ["-cluster_manager.cds.update_attempt: 13", "+cluster_manager.cds.update_attempt: 12"]
    # of a delta that is refused Envoy counts two attempts
    expected = twice if api_type == "DELTA_GRPC" else []
    assert differences({"": envoys_statistics}, {"": our_statistics}) == expected
    assert any("error" in line for line in ours)
