"""The network filter ext_authz: its settings, its defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters.ext_authz import GrpcAuthorization
from sidecar.config.grpc_service import GrpcService
from sidecar.config.matcher import MetadataMatcher, PresentMatch
from sidecar.config.network_ext_authz import TYPE, NetworkExtAuthz, parse_network_ext_authz
from tests.sidecar.config.building import build, problems

GRPC = {"envoy_grpc": {"cluster_name": "a"}}


def test_defaults_fail_closed() -> None:
    found = build(TYPE, {"stat_prefix": "s", "grpc_service": GRPC}, parse_network_ext_authz)
    assert found == NetworkExtAuthz("s", GrpcAuthorization(GrpcService("a"), 0.2))
    assert not found.failure_mode_allow


def test_every_setting() -> None:
    fields = {
        "stat_prefix": "s",
        "grpc_service": {**GRPC, "timeout": "1s"},
        "transport_api_version": "V3",
        "failure_mode_allow": True,
        "include_peer_certificate": True,
        "include_tls_session": True,
        "filter_enabled_metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}},
        "bootstrap_metadata_labels_key": "labels",
        "metadata_context_namespaces": ["m"],
    }
    assert build(TYPE, fields, parse_network_ext_authz) == NetworkExtAuthz(
        "s",
        GrpcAuthorization(GrpcService("a"), 1.0),
        True,
        True,
        True,
        MetadataMatcher("f", ("k",), PresentMatch(True)),
        "labels",
        ("m",),
    )


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, "grpc_service"),
        ({"grpc_service": GRPC, "transport_api_version": "V2"}, "transport_api_version"),
        ({"grpc_service": GRPC, "send_tls_alert_on_denial": True}, "send_tls_alert_on_denial"),
        ({"grpc_service": GRPC, "typed_metadata_context_namespaces": ["x"]}, "typed_metadata_context_namespaces"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], place: str) -> None:
    assert [path for path, _ in problems(TYPE, {"stat_prefix": "s", **fields}, parse_network_ext_authz)] == [place]
