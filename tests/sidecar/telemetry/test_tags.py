"""Prefixes and what Envoy takes out of them as tags; the expectations were read off real Envoy 1.40."""

from __future__ import annotations

import pytest
import re2

from sidecar.telemetry import tags
from sidecar.telemetry.groups.cluster import ClusterStats
from sidecar.telemetry.settings import StatsSettings, TagRule
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore
from sidecar.telemetry.tags import Naming


def label(naming: Naming) -> tuple[str, str, dict[str, str]]:
    words = naming.prefix if naming.tag_extracted_prefix is None else naming.tag_extracted_prefix
    return naming.prefix, words, {name.removeprefix("envoy."): value for name, value in naming.tags}


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        (tags.cluster("a"), ("cluster.a.", "cluster.", {"cluster_name": "a"})),
        (tags.cluster("a:b"), ("cluster.a_b.", "cluster.", {"cluster_name": "a_b"})),
        (tags.cluster("a.b.c"), ("cluster.a.b.c.", "cluster.b.c.", {"cluster_name": "a"})),
        (tags.http_connection_manager("x.y"), ("http.x.y.", "http.y.", {"http_conn_manager_prefix": "x"})),
        (tags.tcp_proxy("t.u"), ("tcp.t.u.", "tcp.u.", {"tcp_prefix": "t"})),
        (tags.network_rbac("n.r"), ("n.r.rbac.", "n.r.rbac.", {})),
        (tags.http_local_rate_limit("h.l"), ("h.l.http_local_rate_limit.", "h.l.http_local_rate_limit.", {})),
        (
            tags.listener("127.0.0.1:80"),
            ("listener.127.0.0.1_80.", "listener.", {"listener_address": "127.0.0.1_80"}),
        ),
        (tags.listener("[::1]:80"), ("listener.[__1]_80.", "listener.", {"listener_address": "[__1]_80"})),
        (tags.listener("myl"), ("listener.myl.", "listener.", {"listener_address": "myl"})),
        (tags.listener("admin"), ("listener.admin.", "listener.admin.", {})),
        (
            tags.listener("/run/u.sock"),
            ("listener./run/u.sock.", "listener.sock.", {"listener_address": "/run/u"}),
        ),
        (
            tags.worker(tags.listener("/run/u.sock"), 0),
            ("listener./run/u.sock.worker_0.", "listener.sock.worker_0.", {"listener_address": "/run/u"}),
        ),
        (
            tags.worker(tags.listener("myl"), 0),
            ("listener.myl.worker_0.", "listener.worker.", {"worker_id": "0", "listener_address": "myl"}),
        ),
        (
            tags.listener_http("/run/u.sock", "ok"),
            (
                "listener./run/u.sock.http.ok.",
                "listener.sock.http.",
                {"http_conn_manager_prefix": "ok", "listener_address": "/run/u"},
            ),
        ),
        (tags.route("v.h", "r.s"), ("vhost.v.h.route.r.s.", "vhost.h.route.r.s.", {"virtual_host": "v"})),
        (
            tags.virtual_cluster("vh", "vc"),
            ("vhost.vh.vcluster.vc.", "vhost.vcluster.", {"virtual_cluster": "vc", "virtual_host": "vh"}),
        ),
    ],
)
def test_names_give_envoys_tags(naming: Naming, expected: tuple[str, str, dict[str, str]]) -> None:
    assert label(naming) == expected


def scraped(settings: StatsSettings, name: str, pattern: str) -> list[str]:
    store = StatsStore(settings)
    store.add(ClusterStats(), *tags.cluster(name)).upstream_cx_length_ms.record(12)
    page = stats_page(store, {"filter": pattern}, as_prometheus=True)
    return [line for line in b"".join(page.body).decode().splitlines() if not line.startswith("#")]


def test_fixed_and_custom_tags_become_labels() -> None:
    rule = TagRule("my.tag", re2.compile(r"^cluster\.((a)\.)").search)
    settings = StatsSettings(fixed_tags=(("fix", "f1"),), tag_rules=(rule,))
    assert scraped(settings, "a.b", "upstream_cx_total") == [
        'envoy_cluster_b_upstream_cx_total{fix="f1",envoy_cluster_name="a",my_tag="a"} 0'
    ]
    assert scraped(settings, "x.b", "upstream_cx_total") == [
        'envoy_cluster_b_upstream_cx_total{fix="f1",envoy_cluster_name="x"} 0'
    ]


def test_a_custom_tag_takes_more_of_the_name_than_the_default_one() -> None:
    rule = TagRule("cluster_name", re2.compile(r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)").search)
    name = "outbound|80||r.d.svc.cluster.local"
    assert scraped(StatsSettings(tag_rules=(rule,)), name, "upstream_cx_total") == [
        f'envoy_cluster_upstream_cx_total{{envoy_cluster_name="outbound|80||r",cluster_name="{name}"}} 0'
    ]


def test_histograms_have_the_buckets_of_the_first_rule_that_matches() -> None:
    settings = StatsSettings(buckets=((lambda name: name.endswith("length_ms"), (10.0, 50.0)),))
    labels = 'envoy_cluster_name="a"'
    assert scraped(settings, "a", "length_ms")[:3] == [
        f'envoy_cluster_upstream_cx_length_ms_bucket{{{labels},le="10"}} 0',
        f'envoy_cluster_upstream_cx_length_ms_bucket{{{labels},le="50"}} 1',
        f'envoy_cluster_upstream_cx_length_ms_bucket{{{labels},le="+Inf"}} 1',
    ]


def test_what_the_matcher_hides_is_nowhere() -> None:
    settings = StatsSettings(visible=lambda name: not name.endswith("_total"))
    assert scraped(settings, "a", "upstream_cx_(total|overflow)") == [
        'envoy_cluster_upstream_cx_overflow{envoy_cluster_name="a"} 0'
    ]
