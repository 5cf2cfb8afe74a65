"""What `mizzen bootstrap` makes: resources that are right, and a bootstrap that both proxies take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from controlplane.cli.workload import (
    Discovery,
    Workload,
    bootstrap_document,
    group_document,
    parse_host_port,
    service_document,
)
from controlplane.model.parsing import parse
from controlplane.model.proxy import ProxyType
from controlplane.xds.node import parse_node
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary

REVIEWS = Workload(
    "reviews", "shop", "10.0.0.7", 9080, "127.0.0.1:8080", version="v2", probe={"httpGet": {"path": "/", "port": 8080}}
)


@pytest.mark.parametrize("document", [service_document(REVIEWS), group_document(REVIEWS)], ids=["service", "group"])
def test_the_resources_are_right(document: dict[str, object]) -> None:
    resource = parse(document)
    assert resource.namespace == "shop"


def test_two_on_one_machine_are_told_apart() -> None:
    other = Workload("reviews", "shop", "10.0.0.7", 9081, "127.0.0.1:8081", version="v2")
    assert REVIEWS.node_id != other.node_id


def test_the_node_says_who_it_is() -> None:
    from envoy.config.core.v3.base_pb2 import Node
    from google.protobuf.json_format import ParseDict

    proxy = parse_node(ParseDict(bootstrap_document(REVIEWS, Discovery("127.0.0.1:15010"))["node"], Node()))
    assert proxy.type is ProxyType.SIDECAR
    assert (proxy.namespace, proxy.service_account, proxy.addresses) == ("shop", "reviews", ("10.0.0.7",))
    assert proxy.labels == {"app": "reviews", "version": "v2"}
    assert proxy.dns_domain == "shop.svc.cluster.local"


@pytest.mark.parametrize("kind", ["plaintext", "tls", "agent"])
@pytest.mark.parametrize("proxy", ["envoy", "sidecar"])
def test_both_proxies_take_the_bootstrap(proxy: str, kind: str, tmp_path: Path) -> None:
    if kind == "tls":
        from tests.controlplane.cli.certificates import certificate

        chain, key = certificate(tmp_path)
        discovery = Discovery("mesh.example.com:15012", chain.read_text(), str(chain), str(key))
    elif kind == "agent":
        discovery = Discovery("10.0.0.1:15012", agent=str(tmp_path / "agent.sock"))
    else:
        discovery = Discovery("127.0.0.1:15010")
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap_document(REVIEWS, discovery)))
    if proxy == "envoy":
        try:
            command = [envoy_binary(), "--use-dynamic-base-id"]
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    else:
        command = [sys.executable, "-m", "sidecar"]
    done = subprocess.run([*command, "--mode", "validate", "--config-path", str(path)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_large_regular_expressions_are_admitted() -> None:
    (layer,) = bootstrap_document(REVIEWS, Discovery("127.0.0.1:15010"))["layered_runtime"]["layers"]
    assert layer["static_layer"] == {"re2.max_program_size.error_level": 32768}


def test_a_workload_with_an_agent_says_so() -> None:
    document = bootstrap_document(REVIEWS, Discovery("10.0.0.1:15012", agent="/run/mizzen/shop/reviews/agent.sock"))
    assert document["node"]["metadata"]["SDS_AGENT"] == "true"
    assert "SDS_AGENT" not in bootstrap_document(REVIEWS, Discovery("127.0.0.1:15010"))["node"]["metadata"]
    xds, agent = document["static_resources"]["clusters"]
    assert (xds["name"], agent["name"]) == ("xds-grpc", "sds-grpc")
    (endpoint,) = agent["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == {"pipe": {"path": "/run/mizzen/shop/reviews/agent.sock"}}
    tls = xds["transport_socket"]["typed_config"]["common_tls_context"]
    assert [one["name"] for one in tls["tls_certificate_sds_secret_configs"]] == ["default"]
    roots = tls["combined_validation_context"]
    assert roots["validation_context_sds_secret_config"]["name"] == "ROOTCA"
    assert roots["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}}
    ]


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:0", "host:65536", "host:http"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        parse_host_port(text, "--app")
