"""Where dynamic resources come from, and that real Envoy takes and refuses the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.config_source import (
    ADS,
    ApiConfigSource,
    ConfigSource,
    DynamicResources,
    PathConfigSource,
    RateLimitSettings,
)
from sidecar.config.grpc_service import GrpcService
from sidecar.config.problems import ConfigurationError
from sidecar.config.retry_policy import RetryBackOff
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.config.resources import Document, bootstrap, cluster, load

NODE = {"id": "id", "cluster": "it"}
SERVICE = {"envoy_grpc": {"cluster_name": "c"}}
STREAM = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [SERVICE]}
REST = {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["c"], "refresh_delay": "2s"}


def dynamic(**fields: Any) -> DynamicResources:
    built, warnings = load(bootstrap(dynamic_resources=fields, node=NODE))
    assert warnings == []
    assert built.dynamic_resources is not None
    return built.dynamic_resources


def lds(**fields: Any) -> ConfigSource:
    found = dynamic(lds_config={"resource_api_version": "V3", **fields}).lds_config
    assert found is not None
    return found


def test_all_types_share_the_stream_of_ads() -> None:
    source = {"ads": {}, "resource_api_version": "V3"}
    found = dynamic(ads_config={**STREAM, "set_node_on_first_message_only": True}, lds_config=source, cds_config=source)
    assert found == DynamicResources(
        ConfigSource(ADS),
        ConfigSource(ADS),
        ApiConfigSource("GRPC", GrpcService("c"), set_node_on_first_message_only=True),
    )


def test_a_server_of_one_type() -> None:
    api = {**STREAM, "api_type": "DELTA_GRPC", "rate_limit_settings": {"fill_rate": 2.5}}
    assert lds(api_config_source=api, initial_fetch_timeout="3s") == ConfigSource(
        ApiConfigSource("DELTA_GRPC", GrpcService("c"), rate_limit_settings=RateLimitSettings(100, 2.5)), 3.0
    )
    assert lds(api_config_source={**REST, "request_timeout": "0.5s"}) == ConfigSource(
        ApiConfigSource("REST", None, "c", 2.0, 0.5)
    )


def test_the_waits_between_two_streams() -> None:
    policy = {"retry_back_off": {"base_interval": "0.2s"}}
    service: Document = {"envoy_grpc": {"cluster_name": "c", "retry_policy": policy}}
    found = dynamic(ads_config={**STREAM, "grpc_services": [service]})
    assert found.ads_config == ApiConfigSource("GRPC", GrpcService("c"), retry_back_off=RetryBackOff(0.2, 2.0))
    service["envoy_grpc"]["retry_policy"] = {"num_retries": 3}
    place = "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.retry_policy.num_retries"
    assert refusals({"ads_config": {**STREAM, "grpc_services": [service]}}) == [place]


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "lds.yaml"
    file.touch()
    assert lds(path=str(file)) == ConfigSource(PathConfigSource(str(file)))
    watched = {"path": str(file), "watched_directory": {"path": str(tmp_path)}}
    assert lds(path_config_source=watched) == ConfigSource(PathConfigSource(str(file), str(tmp_path)))


BOTH = {
    "stream": {"ads_config": STREAM, "cds_config": {"ads": {}, "resource_api_version": "V3"}},
    "stream without versions": {
        "ads_config": {"api_type": "GRPC", "grpc_services": [SERVICE]},
        "cds_config": {"ads": {}},
    },
    "delta": {"cds_config": {"api_config_source": {**STREAM, "api_type": "DELTA_GRPC"}}},
    "rest": {"cds_config": {"api_config_source": REST}},
    "nothing": {},
    "a file that is not there": {"cds_config": {"path": "/nowhere/cds.yaml"}},
    "self": {"cds_config": {"self": {}}},
    "no source": {"cds_config": {"resource_api_version": "V3"}},
    "aggregated": {"cds_config": {"api_config_source": {**STREAM, "api_type": "AGGREGATED_GRPC"}}},
    "aggregated twice": {"ads_config": {**STREAM, "api_type": "AGGREGATED_GRPC"}},
    "a stream of rest": {"ads_config": REST},
    "no such cluster": {"ads_config": {**STREAM, "grpc_services": [{"envoy_grpc": {"cluster_name": "nowhere"}}]}},
    "two services": {"ads_config": {**STREAM, "grpc_services": [SERVICE, SERVICE]}},
    "no service": {"ads_config": {**STREAM, "grpc_services": []}},
    "names for a stream": {"ads_config": {**STREAM, "cluster_names": ["c"]}},
    "two names": {"cds_config": {"api_config_source": {**REST, "cluster_names": ["c", "c"]}}},
    "no delay": {"cds_config": {"api_config_source": {**REST, "refresh_delay": None}}},
    "a rate of nothing": {"ads_config": {**STREAM, "rate_limit_settings": {"fill_rate": 0}}},
}
STRICTER = {
    "ads without a stream": {"cds_config": {"ads": {}}},  # Envoy waits for ever
    "version 2": {"cds_config": {"ads": {}, "resource_api_version": "V2"}, "ads_config": STREAM},  # means nothing there
}


def refusals(fields: Document) -> list[str]:
    try:
        load(bootstrap(dynamic_resources=fields, node=NODE))
    except ConfigurationError as error:
        return [problem.path for problem in error.problems]
    return []


@pytest.mark.parametrize(("node", "missing"), [({}, ["id", "cluster"]), ({"id": "it"}, ["cluster"])])
def test_who_asks_says_who_it_is(node: Document, missing: list[str]) -> None:
    source = {"cds_config": {"ads": {}}, "ads_config": STREAM}
    with pytest.raises(ConfigurationError) as raised:
        load(bootstrap(dynamic_resources=source, node=node))
    assert [problem.path for problem in raised.value.problems] == [f"node.{name}" for name in missing]


def test_what_is_refused_is_named() -> None:
    place = "dynamic_resources."
    assert {name: refusals(fields) for name, fields in {**BOTH, **STRICTER}.items() if refusals(fields)} == {
        "a file that is not there": [f"{place}cds_config.path"],
        "self": [f"{place}cds_config.self"],
        "no source": [f"{place}cds_config"],
        "version 2": [f"{place}cds_config.resource_api_version"],
        "aggregated": [f"{place}cds_config.api_config_source.api_type"],
        "aggregated twice": [f"{place}ads_config.api_type"],
        "a stream of rest": [f"{place}ads_config.api_type"],
        "no such cluster": [f"{place}ads_config.grpc_services[0].envoy_grpc.cluster_name"],
        "two services": [f"{place}ads_config.grpc_services"],
        "no service": [f"{place}ads_config.grpc_services"],
        "names for a stream": [f"{place}ads_config.cluster_names"],
        "two names": [f"{place}cds_config.api_config_source.cluster_names"],
        "no delay": [f"{place}cds_config.api_config_source.refresh_delay"],
        "a rate of nothing": [f"{place}ads_config.rate_limit_settings.fill_rate"],
        "ads without a stream": [f"{place}cds_config.ads"],
    }


@pytest.fixture(scope="module")
def envoy() -> Path:
    try:
        return envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", BOTH)
def test_envoy_says_the_same(name: str, envoy: Path, tmp_path: Path) -> None:
    document = bootstrap(clusters=[cluster()], dynamic_resources=BOTH[name], node=NODE)
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(document))
    run = subprocess.run(
        [envoy, "--mode", "validate", "--use-dynamic-base-id", "-c", str(file)], capture_output=True, timeout=30
    )
    assert (run.returncode == 0) == (not refusals(BOTH[name])), run.stderr.decode()[-600:]
