"""What may be left out of a configuration in a file, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.bootstrap import parse_bootstrap
from sidecar.config.http_connection_manager import HttpConnectionManager, parse_http_connection_manager
from sidecar.config.network_filters import parse_network_filters
from sidecar.config.stats import StatsConfig, TagSpecifier, parse_stats_config
from tests.sidecar.config.building import build_with_warnings, problems

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
CHAIN = "envoy.config.listener.v3.FilterChain"
TYPE = "type.googleapis.com/"
ROUTER = {"name": "router", "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"}}
STATS = {"@type": TYPE + "stats.PluginConfig", "metrics": [{"dimensions": {"a": "request.path"}}], "disable": {"x": []}}
STRUCT = TYPE + "udpa.type.v1.TypedStruct"


def manager(*configs: dict[str, Any]) -> dict[str, Any]:
    filters = [{"name": f"f{position}", "typed_config": config} for position, config in enumerate(configs)]
    return {"stat_prefix": "s", "route_config": {}, "http_filters": [*filters, ROUTER]}


def built(*configs: dict[str, Any]) -> tuple[HttpConnectionManager, list[str]]:
    return build_with_warnings(MANAGER, manager(*configs), parse_http_connection_manager)


def test_an_extension_of_the_table_is_left_out_whatever_stands_in_it_with_one_warning() -> None:
    struct = {"@type": STRUCT, "type_url": TYPE + "stats.PluginConfig", "value": {"a": [1]}}
    made, warnings = built(STATS, struct, STATS)
    assert [one.name for one in made.http_filters] == ["router"]
    (warning,) = warnings
    assert warning.startswith("test.yaml: http_filters[0]: stats.PluginConfig is left out: Istio's own statistics")


def test_one_that_is_last_does_not_stand_in_for_the_router() -> None:
    document = manager(STATS)
    document["http_filters"].reverse()
    made, _ = build_with_warnings(MANAGER, document, parse_http_connection_manager)
    assert [one.name for one in made.http_filters] == ["router"]
    document["http_filters"].pop(0)
    assert build_with_warnings(MANAGER, document, parse_http_connection_manager)[0].http_filters == ()


@pytest.mark.parametrize(
    "config",
    [
        {"@type": TYPE + "envoy.tcp.metadataexchange.config.MetadataExchange"},
        {"@type": TYPE + "istio.workload.BootstrapExtension"},
        {"@type": STRUCT, "type_url": TYPE + "istio.workload.BootstrapExtension"},
    ],
)
def test_one_is_left_out_only_where_it_belongs(config: dict[str, Any]) -> None:
    (problem,) = problems(MANAGER, manager(config), parse_http_connection_manager)
    assert problem[0].startswith("http_filters[0].typed_config")
    assert "is not known" in problem[1]


def test_a_typed_struct_of_something_unknown_is_refused_by_its_type() -> None:
    config = {"@type": STRUCT, "type_url": TYPE + "io.istio.network.authn.Config", "value": {}}
    document = {"filters": [{"name": "istio_authn", "typed_config": config}]}
    found = problems(CHAIN, document, lambda node: parse_network_filters(node.children("filters")))
    assert found == [
        (
            "filters[0].typed_config",
            "a TypedStruct of 'type.googleapis.com/io.istio.network.authn.Config' is not implemented by Mizzen",
        )
    ]


def test_bootstrap_extensions_but_those_of_the_table_are_refused() -> None:
    wasm = {"@type": TYPE + "envoy.extensions.wasm.v3.WasmService"}
    document = {"bootstrap_extensions": [{"name": "wasm", "typed_config": wasm}]}
    assert problems(BOOTSTRAP, document, parse_bootstrap) == [
        ("bootstrap_extensions[0].typed_config", "envoy.extensions.wasm.v3.WasmService is not implemented by Mizzen")
    ]


def test_tags_of_statistics_as_istiods_bootstrap_has_them() -> None:
    document = {
        "use_all_default_tags": False,
        "stats_tags": [{"tag_name": "a", "regex": r"^listener(?=\.)(.*)"}, {"tag_name": "b", "regex": r"^x\.((.*)\.)"}],
    }
    made, warnings = build_with_warnings("envoy.config.metrics.v3.StatsConfig", document, parse_stats_config)
    assert made == StatsConfig((TagSpecifier("b", r"^x\.((.*)\.)"),))
    assert warnings == [
        "test.yaml: use_all_default_tags: is ignored: statistics always have Envoy's own tags",
        "test.yaml: stats_tags[0].regex: the tag 'a' is left out: RE2 has no (?=",
    ]
