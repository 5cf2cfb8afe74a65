"""PROXY headers in the configuration of clusters: what is taken, where TLS is inside, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.tls import UpstreamTlsContext
from tests.sidecar.config.resources import bootstrap, cluster, load_cluster, refusals

TYPE = "type.googleapis.com/envoy.extensions.transport_sockets."
HERE = "static_resources.clusters[0].transport_socket.typed_config"


def socket(kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": kind, "typed_config": {"@type": TYPE + kind, **fields}}


RAW = socket("raw_buffer.v3.RawBuffer")
TLS = socket("tls.v3.UpstreamTlsContext", sni="a.example")


def proxying(inner: dict[str, Any] | None = RAW, **config: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"config": config} if config else {}
    if inner is not None:
        fields["transport_socket"] = inner
    return socket("proxy_protocol.v3.ProxyProtocolUpstreamTransport", **fields)


@pytest.mark.parametrize(
    ("given", "version", "sni"),
    [
        (proxying(version="V1"), "V1", None),
        (proxying(version="V2"), "V2", None),
        (proxying(), "V1", None),
        (proxying(TLS, version="V2"), "V2", "a.example"),
        (TLS, "", "a.example"),
        (RAW, "", None),
    ],
)
def test_it_goes_before_the_socket_inside(given: dict[str, Any], version: str, sni: str | None) -> None:
    made = load_cluster(transport_socket=given)
    (match,) = load_cluster(
        transport_socket_matches=[{"name": "m", "match": {}, "transport_socket": given}]
    ).transport_socket_matches
    for one in (made, match):
        assert one.proxy_protocol == version
        inside = one.transport_socket
        assert (inside.sni if isinstance(inside, UpstreamTlsContext) else inside) == sni


@pytest.mark.parametrize(
    ("given", "path", "problem"),
    [
        (proxying(None), f"{HERE}.transport_socket", "is required"),
        (proxying(proxying()), f"{HERE}.transport_socket.typed_config", "is not implemented by Mizzen"),
        (
            proxying(added_tlvs=[{"type": 1, "value": "YQ=="}]),
            f"{HERE}.config.added_tlvs",
            "is not implemented by Mizzen",
        ),
        (
            proxying(pass_through_tlvs={"match_type": "INCLUDE_ALL"}),
            f"{HERE}.config.pass_through_tlvs",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_what_is_not_there_is_refused(given: dict[str, Any], path: str, problem: str) -> None:
    (found,) = refusals(bootstrap([], [cluster(transport_socket=given)]))
    assert found[0] == path
    assert problem in found[1]
