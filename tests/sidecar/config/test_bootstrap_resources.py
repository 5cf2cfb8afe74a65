"""The bootstrap: node, admin, runtime, statistics, and problems from several resources at once."""

from __future__ import annotations

import pytest

from sidecar.config.access_log import AccessLog, FileAccessLog
from sidecar.config.address import SocketAddress
from sidecar.config.bootstrap import Admin, Bootstrap, NodeIdentity, StaticResources
from sidecar.config.core_types import Locality
from sidecar.config.matcher import StringMatcher
from sidecar.config.stats import HistogramBucketSettings, StatsConfig, StatsMatcher, TagSpecifier
from tests.sidecar.config.resources import Document, bootstrap, cluster, listener, load, refusals, socket_address


def test_an_empty_bootstrap() -> None:
    built, warnings = load({})
    assert warnings == []
    assert built == Bootstrap(NodeIdentity(), None, StaticResources((), ()), StatsConfig(), 5.0, {})


def test_node_and_admin() -> None:
    built, warnings = load(
        {
            "node": {"id": "n", "cluster": "s", "metadata": {"a": 1}, "locality": {"zone": "z"}},
            "admin": {
                "address": socket_address(port=9901),
                "access_log_path": "/dev/null",
                "allow_paths": [{"exact": "/stats"}],
            },
        }
    )
    assert warnings == []
    assert built.node == NodeIdentity("n", "s", {"a": 1}, Locality(zone="z"))
    assert built.admin == Admin(
        SocketAddress("127.0.0.1", 9901),
        (AccessLog(FileAccessLog("/dev/null")),),
        (),
        (StringMatcher("exact", b"/stats"),),
    )


def test_resources_keep_the_order_of_the_file() -> None:
    built, _ = load(bootstrap([listener(name="b"), listener(name="a")], [cluster(name="z"), cluster()]))
    assert [each.name for each in built.static_resources.listeners] == ["b", "a"]
    assert [each.name for each in built.static_resources.clusters] == ["z", "c"]


def test_later_layers_of_the_runtime_win_and_keys_without_effect_are_named() -> None:
    limits = {"envoy": {"resource_limits": {"listener": {"l": {"connection_limit": 5}}}}}
    built, warnings = load(
        {
            "layered_runtime": {
                "layers": [
                    {"name": "one", "static_layer": {**limits, "a.b": {"numerator": 1, "denominator": "HUNDRED"}}},
                    {"name": "two", "static_layer": {"envoy.resource_limits.listener.l.connection_limit": 6}},
                    {"name": "three", "admin_layer": {}},
                ]
            }
        }
    )
    assert built.layered_runtime == {
        "envoy.resource_limits.listener.l.connection_limit": 6,
        "a.b": {"numerator": 1, "denominator": "HUNDRED"},
    }
    assert warnings == [
        "configuration: layered_runtime.layers[2].admin_layer: is ignored: "
        "the runtime cannot be changed over the administration interface",
        "configuration: layered_runtime: the runtime key 'a.b' has no effect in Mizzen",
    ]


def test_statistics() -> None:
    built, _ = load(
        {
            "stats_flush_interval": "1s",
            "stats_config": {
                "stats_tags": [
                    {"tag_name": "fixed", "fixed_value": "x"},
                    {"tag_name": "found", "regex": "^a\\.((.+?)\\.)"},
                    {"tag_name": "envoy.cluster_name"},
                ],
                "use_all_default_tags": True,
                "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster."}]}},
                "histogram_bucket_settings": [{"match": {"suffix": "_ms"}, "buckets": [5, 0.5, 10]}],
            },
        }
    )
    assert built.stats_flush_interval == 1.0
    assert built.stats_config == StatsConfig(
        (
            TagSpecifier("fixed", None, "x"),
            TagSpecifier("found", "^a\\.((.+?)\\.)"),
            TagSpecifier("envoy.cluster_name"),
        ),
        StatsMatcher(False, None, (StringMatcher("prefix", b"cluster."),)),
        (HistogramBucketSettings(StringMatcher("suffix", b"_ms"), (0.5, 5.0, 10.0)),),
    )


@pytest.mark.parametrize(
    ("document", "path", "problem"),
    [
        (
            {"layered_runtime": {"layers": [{"name": "a", "admin_layer": None, "static_layer": {}}] * 2}},
            "layered_runtime.layers[1].name",
            "another layer is called 'a' too",
        ),
        (
            {"layered_runtime": {"layers": [{"name": "a", "disk_layer": {"symlink_root": "/x"}}]}},
            "layered_runtime.layers[0].disk_layer",
            "is not implemented by Mizzen",
        ),
        (
            {"stats_config": {"stats_tags": [{"tag_name": "y", "regex": "("}]}},
            "stats_config.stats_tags[0].regex",
            "is no regular expression for RE2: missing ): (",
        ),
        (
            {"stats_config": {"stats_tags": [{"tag_name": "y"}]}},
            "stats_config.stats_tags[0]",
            "says nothing about the tag's value",
        ),
        ({"stats_sinks": [{"name": "a"}]}, "stats_sinks", "is not implemented by Mizzen"),
        ({"header_prefix": "x-a"}, "header_prefix", "is not implemented by Mizzen"),
        (
            {"admin": {"address": socket_address("localhost", 1)}},
            "admin.address.socket_address.address",
            "the administration interface's address must be an IP address, and 'localhost' is none",
        ),
    ],
)
def test_what_is_wrong_is_refused(document: Document, path: str, problem: str) -> None:
    assert (path, problem) in refusals(document)


def test_all_problems_are_listed_at_once() -> None:
    found = refusals(
        bootstrap(
            [listener(filter_chains=[]), listener(name="b", reuse_port=True)],
            [cluster(type="ORIGINAL_DST", eds_cluster_config={}), cluster(name="d", connect_timeout="0s")],
            header_prefix="x-mizzen",
        )
    )
    assert {path for path, _ in found} == {
        "header_prefix",
        "static_resources.listeners[0].filter_chains",
        "static_resources.listeners[1].reuse_port",
        "static_resources.clusters[0].load_assignment",
        "static_resources.clusters[0].lb_policy",
        "static_resources.clusters[0].eds_cluster_config",
        "static_resources.clusters[1].connect_timeout",
    }
