"""What `stats_config` of the bootstrap does to the statistics of a running sidecar."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar.server import Server
from tests.running import get
from tests.sidecar.bootstraps import bootstrap, cluster, direct, http_listener


def pages(stats_config: dict[str, Any], *paths: str) -> list[str]:
    """Pages of the administration interface of a sidecar with one listener, one cluster and this `stats_config`."""

    async def ask() -> list[str]:
        config = bootstrap(http_listener("one", 0, [direct("")]), clusters=(cluster("far", 1),), admin=0)
        async with Server({**config, "stats_config": stats_config}) as server:
            port = server.admin_address[1]
            return [(await asyncio.to_thread(get, port, path))[2] for path in paths]

    return asyncio.run(ask())


def names(page: str) -> set[str]:
    return {line.partition(":")[0] for line in page.splitlines()}


def test_only_statistics_of_the_inclusion_list_are_there() -> None:
    (page,) = pages({"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster.far."}]}}}, "/stats")
    assert names(page) and all(name.startswith("cluster.far.") for name in names(page))


def test_statistics_of_the_exclusion_list_are_not_there() -> None:
    excluded = {"stats_matcher": {"exclusion_list": {"patterns": [{"safe_regex": {"regex": "cluster[.].*"}}]}}}
    (page,) = pages(excluded, "/stats")
    assert "server.live" in names(page) and not any(name.startswith("cluster.") for name in names(page))


@pytest.mark.parametrize(("rejected", "count"), [(True, 0), (False, 1)])
def test_all_may_be_rejected(rejected: bool, count: int) -> None:
    (page,) = pages({"stats_matcher": {"reject_all": rejected}}, "/stats?filter=server.live")
    assert page.count("server.live") == count


def test_tags_with_a_value_and_tags_that_an_expression_finds() -> None:
    tags = [{"tag_name": "mesh", "fixed_value": "blue"}, {"tag_name": "kind", "regex": r"^cluster\.((f)ar\.)"}]
    (page,) = pages({"stats_tags": tags}, "/stats/prometheus?filter=cluster.far.membership_total")
    (line,) = (line for line in page.splitlines() if line.startswith("envoy_cluster_membership_total{"))
    assert 'mesh="blue"' in line and 'kind="f"' in line


def test_buckets_of_histograms() -> None:
    buckets = [{"match": {"suffix": "initialization_time_ms"}, "buckets": [1, 1000000]}]
    (page,) = pages(
        {"histogram_bucket_settings": buckets}, "/stats?format=json&histogram_buckets=cumulative&filter=initialization"
    )
    (histogram,) = json.loads(page)["stats"][-1]["histograms"]
    assert [bucket["upper_bound"] for bucket in histogram["buckets"]] == [1, 1000000]
