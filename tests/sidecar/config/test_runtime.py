"""Values of the runtime's keys: what a field with a `runtime_key` gets from them, and which keys have no effect.

The values of fractions were compared with those of Envoy, by the share of requests that a route took.
"""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.access_log import RuntimeFilter, StatusCodeFilter
from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.lb_policies import LeastRequestLbConfig
from sidecar.config.network_filters import LocalRateLimit
from sidecar.config.runtime import Runtime
from tests.sidecar.config.resources import (
    LOGGER,
    Document,
    bootstrap,
    chain,
    cluster,
    hcm,
    listener,
    load,
    network_filter,
)


@pytest.mark.parametrize(
    ("value", "fraction"),
    [
        (30, (30, 100)),
        (12.5, (12, 100)),
        (0, (0, 100)),
        (-1, None),
        (250, (100, 100)),
        (True, None),
        ("30", (30, 100)),
        (" 100 ", (100, 100)),
        ("0x64", (100, 100)),
        ("1e2", (100, 100)),
        ("1_0", None),
        ("true", None),
        ("abc", None),
        ([1], None),
        ({"numerator": 5}, (5, 100)),
        ({"numerator": 5, "denominator": "MILLION"}, (5, 1_000_000)),
        ({"numerator": 5, "denominator": 1}, (5, 10_000)),
        ("{numerator: 100, denominator: HUNDRED}", None),
    ],
)
def test_a_percentage_is_a_number_or_a_fraction(value: Any, fraction: tuple[int, int] | None) -> None:
    assert Runtime({"k": value}).fraction("k") == fraction


@pytest.mark.parametrize(
    ("value", "flag", "integer", "number"),
    [
        (True, True, None, None),
        ("False", False, None, None),
        (1, None, 1, 1.0),
        ("2.9", None, 2, 2.9),
        (-2, None, None, -2.0),
        ("nan", None, None, None),
        ({"numerator": 5}, None, None, None),
    ],
)
def test_flags_and_numbers(value: Any, flag: bool | None, integer: int | None, number: float | None) -> None:
    runtime = Runtime({"k": value})
    assert (runtime.flag("k"), runtime.integer("k")) == (flag, integer)
    assert value == "nan" or runtime.number("k") == number


def test_a_key_that_is_not_there() -> None:
    runtime = Runtime({"": 1})
    assert (runtime.flag("k"), runtime.integer("k"), runtime.number("k"), runtime.fraction("k")) == (None,) * 4
    assert runtime.integer("") == 1 and runtime.used == {"k"}


LAYERS: Document = {
    "layers": [
        {
            "name": "static",
            "static_layer": {
                "routes": {"share": 7},
                "logs": {"share": {"numerator": 9, "denominator": "MILLION"}, "status": 418},
                "limit": {"on": False},
                "balance.bias": 0.25,
                "unused": 1,
            },
        }
    ]
}


def test_fields_have_the_values_of_their_keys_and_other_keys_are_named() -> None:
    routes = [
        {
            "match": {
                "prefix": "/",
                "runtime_fraction": {"default_value": {"numerator": 1}, "runtime_key": key},
            },
            "direct_response": {"status": 200},
        }
        for key in ("routes.share", "routes.missing", "")
    ]
    filters = [
        {"runtime_filter": {"runtime_key": "logs.share", "percent_sampled": {"numerator": 1}}},
        {"runtime_filter": {"runtime_key": "logs.missing", "percent_sampled": {"numerator": 1}}},
        {
            "status_code_filter": {
                "comparison": {"op": "GE", "value": {"default_value": 5, "runtime_key": "logs.status"}}
            }
        },
    ]
    logs = [
        {"name": "a", "filter": one, "typed_config": {"@type": LOGGER + "stream.v3.StdoutAccessLog"}} for one in filters
    ]
    manager = hcm(
        access_log=logs, route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    )
    limit = network_filter(
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="l",
        token_bucket={"max_tokens": 1, "fill_interval": "1s"},
        runtime_enabled={"default_value": True, "runtime_key": "limit.on"},
    )
    bias = {"active_request_bias": {"default_value": 1.0, "runtime_key": "balance.bias"}}
    built, warnings = load(
        bootstrap(
            [listener(filter_chains=[chain(None, limit, manager)])],
            [cluster(lb_policy="LEAST_REQUEST", least_request_lb_config=bias)],
            layered_runtime=LAYERS,
        )
    )
    first, last = built.static_resources.listeners[0].filter_chains[0].filters
    assert isinstance(first.typed_config, LocalRateLimit) and not first.typed_config.runtime_enabled
    assert isinstance(last.typed_config, HttpConnectionManager)
    matches = [route.match for route in last.typed_config.route_config.virtual_hosts[0].routes]
    assert [match.runtime_fraction for match in matches] == [(7, 100), (1, 100), (1, 100)]
    assert [log.filter for log in last.typed_config.access_log] == [
        RuntimeFilter((9, 1_000_000), False),
        RuntimeFilter((1, 100), False),
        StatusCodeFilter("GE", 418),
    ]
    assert built.static_resources.clusters[0].lb_config == LeastRequestLbConfig(2, 0.25)
    assert warnings == ["configuration: layered_runtime: the runtime key 'unused' has no effect in Mizzen"]
