"""Network filters: their fields, and where in a chain they may stand."""

from __future__ import annotations

import pytest

from sidecar.config.core_types import TokenBucket
from sidecar.config.network_filters import (
    ClusterWeight,
    ConnectionLimit,
    DirectResponse,
    LocalRateLimit,
    NetworkFilterConfig,
    NetworkRbac,
    SniCluster,
    TcpProxy,
)
from tests.sidecar.config.resources import (
    LOGGER,
    SNI_CLUSTER,
    Document,
    bootstrap,
    chain,
    listener,
    load_listener,
    network_filter,
    refusals,
    tcp_proxy,
)

HERE = "static_resources.listeners[0].filter_chains[0].filters"


def load_filters(*filters: Document) -> list[NetworkFilterConfig]:
    built = load_listener(filter_chains=[chain(None, *filters)])
    return [each.typed_config for each in built.filter_chains[0].filters]


def test_tcp_proxy() -> None:
    assert load_filters(tcp_proxy()) == [TcpProxy("tcp", "c")]
    built = load_filters(
        tcp_proxy(
            cluster=None,
            weighted_clusters={
                "clusters": [
                    {"name": "c", "weight": 3, "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v1"}}}},
                    {"name": "c", "weight": 1},
                ]
            },
            metadata_match={"filter_metadata": {"envoy.lb": {"version": "v0", "stage": "prod"}}},
            idle_timeout="0s",
            max_connect_attempts=3,
            access_log=[{"name": "out", "typed_config": {"@type": f"{LOGGER}stream.v3.StderrAccessLog"}}],
        )
    )
    (proxy,) = built
    assert isinstance(proxy, TcpProxy)
    assert proxy.weighted_clusters == (
        ClusterWeight("c", 3, {"version": "v1", "stage": "prod"}),
        ClusterWeight("c", 1, {"version": "v0", "stage": "prod"}),
    )
    assert (proxy.cluster, proxy.idle_timeout, proxy.max_connect_attempts) == ("", 0.0, 3)
    assert proxy.metadata_match == {"version": "v0", "stage": "prod"}
    assert len(proxy.access_log) == 1


def test_the_other_filters() -> None:
    rules = {"action": "DENY", "policies": {"all": {"permissions": [{"any": True}], "principals": [{"any": True}]}}}
    rbac, rate_limit, connections, sni, response = load_filters(
        network_filter(
            "rbac.v3.RBAC",
            stat_prefix="r",
            rules=rules,
            shadow_rules=rules,
            shadow_rules_stat_prefix="s",
            delay_deny="1s",
        ),
        network_filter(
            "local_ratelimit.v3.LocalRateLimit",
            stat_prefix="l",
            token_bucket={"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "0.05s"},
            runtime_enabled={"default_value": False, "runtime_key": "on"},
        ),
        network_filter(
            "connection_limit.v3.ConnectionLimit", stat_prefix="c", max_connections=9, delay="2s", runtime_enabled=None
        ),
        SNI_CLUSTER,
        network_filter("direct_response.v3.Config", response={"inline_bytes": "AAE="}),
    )
    assert isinstance(rbac, NetworkRbac)
    assert (rbac.stat_prefix, rbac.shadow_rules_stat_prefix) == ("r", "s")
    assert rbac.delay_deny == 1.0
    assert rbac.rules == rbac.shadow_rules
    assert rbac.rules is not None
    assert rbac.rules.action == "DENY"
    assert rate_limit == LocalRateLimit("l", TokenBucket(5, 2, 0.05), False)
    assert connections == ConnectionLimit("c", 9, 2.0, True)
    assert sni == SniCluster()
    assert response == DirectResponse(b"\x00\x01")


@pytest.mark.parametrize(
    ("filters", "path", "problem"),
    [
        ([SNI_CLUSTER], "[0]", "is the last of its filter chain, and not a terminal filter"),
        ([tcp_proxy(), tcp_proxy()], "[0]", "is a terminal filter, and others follow it"),
        ([{"name": "nothing"}], "[0].typed_config", "is required to tell which extension is meant"),
        (
            [network_filter("echo.v3.Echo")],
            "[0].typed_config",
            "envoy.extensions.filters.network.echo.v3.Echo is not implemented by Mizzen",
        ),
        ([tcp_proxy(cluster="d")], "[0].typed_config.cluster", "there is no cluster called 'd'"),
        (
            [tcp_proxy(cluster=None, weighted_clusters={"clusters": [{"name": "d", "weight": 1}]})],
            "[0].typed_config.weighted_clusters.clusters[0].name",
            "there is no cluster called 'd'",
        ),
        (
            [tcp_proxy(tunneling_config={"hostname": "h"})],
            "[0].typed_config.tunneling_config",
            "is not implemented by Mizzen",
        ),
        (
            [
                network_filter(
                    "local_ratelimit.v3.LocalRateLimit",
                    stat_prefix="l",
                    token_bucket={"max_tokens": 5, "fill_interval": "0.04s"},
                ),
                tcp_proxy(),
            ],
            "[0].typed_config.token_bucket.fill_interval",
            "must be at least 0.05s",
        ),
    ],
)
def test_what_is_wrong_is_refused(filters: list[Document], path: str, problem: str) -> None:
    found = refusals(bootstrap([listener(filter_chains=[{"filters": filters}])]))
    assert found[0][0] == HERE + path
    assert found[0][1].startswith(problem)
