"""The demo's table, from what a sidecar's `/stats/prometheus` says."""

from __future__ import annotations

import pytest

from controlplane.cli.bookshop.figures import Counted, Way, read, rows

BEFORE = """\
# TYPE envoy_cluster_upstream_rq_completed counter
envoy_cluster_upstream_rq_completed{cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local"} 10
envoy_cluster_upstream_rq_completed{cluster_name="outbound|9080||details.shop.svc.cluster.local"} 0
envoy_cluster_upstream_rq_completed{cluster_name="inbound|9080||"} 7
envoy_cluster_upstream_rq_completed{cluster_name="xds-grpc"} 3
"""
AFTER = """\
envoy_cluster_upstream_rq_completed{cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local"} 30
envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local"} 5
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",cluster_name="inbound|9080||"} 25
envoy_cluster_upstream_rq_time_bucket{cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local",le="5"} 10
envoy_cluster_upstream_rq_time_bucket{cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local",le="10"} 20
envoy_cluster_upstream_rq_time_bucket{cluster_name="outbound|9080|v2|reviews.shop.svc.cluster.local",le="+Inf"} 20
envoy_cluster_upstream_rq_completed{cluster_name="inbound|9080||"} 7
envoy_http_0_0_1_15001_fault_aborts_injected{envoy_http_conn_manager_prefix="outbound_127"} 4
"""


def test_a_row_for_each_way_that_was_used() -> None:
    found = rows(read("page v1", AFTER), read("page v1", BEFORE), 2.0)
    assert [(row.source, row.destination, row.rate, row.failed) for row in found] == [
        ("", "page v1", 0.0, 0.0),
        ("page v1", "(aborted by a fault)", 2.0, 1.0),
        ("page v1", "reviews v2", 10.0, 0.25),
    ]
    assert (found[2].p50, found[2].p99) == (5.0, pytest.approx(9.9))
    assert found[0].p50 is None


def test_quantiles_of_nothing_and_of_what_no_bucket_bounds() -> None:
    assert Counted().quantile(0.5) is None
    assert Counted(buckets={1.0: 0, float("inf"): 3}).quantile(0.5) == 1.0


def test_ways_are_named_by_service_and_subset() -> None:
    assert read("page v1", BEFORE).keys() == {
        Way("page v1", "reviews", "v2"),
        Way("page v1", "details"),
        Way("", "page v1"),
    }
