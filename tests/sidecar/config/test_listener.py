"""Listeners: defaults, every field, filter chains and their matches, listener filters, names and addresses."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.config.address import Pipe, SocketAddress
from sidecar.config.core_types import SocketOption
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.config.listener import AdditionalAddress, Listener
from sidecar.config.listener_filters import (
    AndMatch,
    AnyMatch,
    DestinationPortRange,
    HttpInspector,
    ListenerFilter,
    NotMatch,
    OriginalDst,
    OrMatch,
    ProxyProtocol,
    TlsInspector,
    TlvRule,
)
from tests.sidecar.config.resources import (
    LISTENER_FILTER,
    Document,
    bootstrap,
    chain,
    listener,
    load,
    load_listener,
    refusals,
    socket_address,
)

HERE = "static_resources.listeners[0]"


def listener_filter(kind: str, **fields: Any) -> Document:
    return {"name": kind, "typed_config": {"@type": LISTENER_FILTER + kind, **fields}}


def test_a_listener_with_little_has_the_defaults_of_envoy() -> None:
    built = load_listener()
    assert built == Listener("l", SocketAddress("127.0.0.1", 0), built.filter_chains)
    assert built.per_connection_buffer_limit_bytes == 1024 * 1024
    assert built.listener_filters_timeout == 15.0
    assert built.filter_chains[0].filter_chain_match == FilterChainMatch()


def test_use_original_dst_brings_the_filter_that_asks_for_it() -> None:
    inspector, own = listener_filter("tls_inspector.v3.TlsInspector"), listener_filter("original_dst.v3.OriginalDst")

    def filters(**fields: Any) -> list[type]:
        return [type(one.typed_config) for one in load_listener(**fields).listener_filters]

    assert filters(use_original_dst=True) == [OriginalDst]
    assert filters(use_original_dst=True, listener_filters=[inspector]) == [TlsInspector, OriginalDst]
    assert filters(use_original_dst=True, listener_filters=[own, inspector]) == [OriginalDst, TlsInspector]
    assert filters(use_original_dst=False) == []


def test_every_field() -> None:
    option = {"level": 1, "name": 2, "int_value": 3, "state": "STATE_LISTENING", "description": "for a reason"}
    built = load_listener(
        additional_addresses=[
            {"address": socket_address("::1", 1)},
            {"address": {"pipe": {"path": "@hidden", "mode": 0o600}}, "socket_options": {"socket_options": [option]}},
        ],
        stat_prefix="front",
        use_original_dst=True,
        per_connection_buffer_limit_bytes=4096,
        metadata={"filter_metadata": {"a": {"b": [1, 1.5, None, "c"]}}},
        listener_filters_timeout="0s",
        continue_on_listener_filters_timeout=True,
        transparent=True,
        freebind=True,
        socket_options=[{"level": 6, "name": 7, "buf_value": "AAE="}],
        tcp_fast_open_queue_length=0,
        traffic_direction="INBOUND",
        tcp_backlog_size=9,
        max_connections_to_accept_per_socket_event=2,
        bind_to_port=False,
        enable_reuse_port=False,
        drain_type="MODIFY_ONLY",
        ignore_global_conn_limit=True,
        bypass_overload_manager=True,
        default_filter_chain=chain(name="else"),
    )
    set_option = SocketOption(1, 2, 3, "STATE_LISTENING")
    assert built.additional_addresses == (
        AdditionalAddress(SocketAddress("::1", 1)),
        AdditionalAddress(Pipe("@hidden", 0o600), (set_option,)),
    )
    assert (built.stat_prefix, built.use_original_dst, built.per_connection_buffer_limit_bytes) == ("front", True, 4096)
    assert built.metadata == {"a": {"b": [1, 1.5, None, "c"]}}
    assert (built.listener_filters_timeout, built.continue_on_listener_filters_timeout) == (0.0, True)
    assert (built.transparent, built.freebind, built.tcp_fast_open_queue_length) == (True, True, 0)
    assert built.socket_options == (SocketOption(6, 7, b"\x00\x01", "STATE_PREBIND"),)
    assert (built.traffic_direction, built.tcp_backlog_size, built.drain_type) == ("INBOUND", 9, "MODIFY_ONLY")
    assert built.max_connections_to_accept_per_socket_event == 2
    assert (built.bind_to_port, built.enable_reuse_port, built.ignore_global_conn_limit) == (False, False, True)
    assert built.bypass_overload_manager
    assert built.default_filter_chain is not None
    assert built.default_filter_chain.name == "else"


def test_a_listener_without_a_name_is_called_after_its_address() -> None:
    assert load_listener(name=None, address=socket_address("::1", 8080)).name == "[::1]:8080"
    assert load_listener(name=None, address={"pipe": {"path": "/run/l"}}).name == "/run/l"


def test_every_filter_chain_match_criterion() -> None:
    match = {
        "destination_port": 80,
        "prefix_ranges": [
            {"address_prefix": "10.1.2.3", "prefix_len": 8},
            {"address_prefix": "::1", "prefix_len": 128},
        ],
        "direct_source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 16}],
        "source_type": "EXTERNAL",
        "source_prefix_ranges": [{"address_prefix": "192.168.0.0"}],
        "source_ports": [1, 2],
        "server_names": ["a.example", "*.b.example"],
        "transport_protocol": "tls",
        "application_protocols": ["h2", "http/1.1"],
    }
    assert load_listener(filter_chains=[chain(match)]).filter_chains[0].filter_chain_match == FilterChainMatch(
        80,
        (ip_network("10.0.0.0/8"), ip_network("::1/128")),
        (ip_network("10.0.0.0/16"),),
        "EXTERNAL",
        (ip_network("0.0.0.0/0"),),
        (1, 2),
        ("a.example", ".b.example"),
        "tls",
        ("h2", "http/1.1"),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"destination_port": 1}, {"destination_port": 1}),
        ({}, None),
        ({"source_ports": [1, 2]}, {"source_ports": [2, 3]}),
        ({"server_names": ["*.a"]}, {"server_names": ["b", ".a"]}),
        (
            {"prefix_ranges": [{"address_prefix": "10.1.1.1", "prefix_len": 8}]},
            {"prefix_ranges": [{"address_prefix": "10.2.2.2", "prefix_len": 8}]},
        ),
    ],
)
def test_filter_chains_for_the_same_connections_are_refused(one: Document, other: Document | None) -> None:
    found = refusals(bootstrap([listener(filter_chains=[chain(one), chain(other)])]))
    assert found == [
        (f"{HERE}.filter_chains[1].filter_chain_match", f"matches connections that {HERE}.filter_chains[0] matches too")
    ]


@pytest.mark.parametrize("name", ["*", "a*.example", "*a.example", "a.*"])
def test_a_wildcard_is_the_whole_first_label(name: str) -> None:
    (path, problem), *rest = refusals(bootstrap([listener(filter_chains=[chain({"server_names": [name]})])]))
    assert rest == []
    assert path == f"{HERE}.filter_chains[0].filter_chain_match.server_names"
    assert name in problem


def test_listener_filters() -> None:
    port = {"destination_port_range": {"start": 80, "end": 81}}
    disabled = {"and_match": {"rules": [{"or_match": {"rules": [port, port]}}, {"not_match": {"any_match": True}}]}}
    rule = {"tlv_type": 2, "on_tlv_present": {"key": "authority"}}
    built = load_listener(
        listener_filters=[
            listener_filter("original_dst.v3.OriginalDst"),
            {**listener_filter("tls_inspector.v3.TlsInspector"), "filter_disabled": disabled},
            listener_filter("http_inspector.v3.HttpInspector"),
            listener_filter(
                "proxy_protocol.v3.ProxyProtocol",
                rules=[rule],
                allow_requests_without_proxy_protocol=True,
                disallowed_versions=["V1"],
                stat_prefix="pp",
            ),
        ]
    )
    ports = DestinationPortRange(80, 81)
    tlv = TlvRule(2, "envoy.filters.listener.proxy_protocol", "authority")
    assert built.listener_filters == (
        ListenerFilter("original_dst.v3.OriginalDst", OriginalDst()),
        ListenerFilter(
            "tls_inspector.v3.TlsInspector", TlsInspector(), AndMatch((OrMatch((ports, ports)), NotMatch(AnyMatch())))
        ),
        ListenerFilter("http_inspector.v3.HttpInspector", HttpInspector()),
        ListenerFilter("proxy_protocol.v3.ProxyProtocol", ProxyProtocol((tlv,), True, frozenset({"V1"}), "pp")),
    )


def test_a_hint_about_buffers_is_ignored_with_a_warning() -> None:
    inspector = listener_filter("tls_inspector.v3.TlsInspector", initial_read_buffer_size=512)
    _, warnings = load(bootstrap([listener(listener_filters=[inspector])]))
    assert len(warnings) == 1
    assert "initial_read_buffer_size: is ignored: the ClientHello is peeked at whole" in warnings[0]


def test_names_and_addresses_are_used_once() -> None:
    found = refusals(bootstrap([listener(address=socket_address(port=80)), listener(address=socket_address(port=80))]))
    assert found == [
        ("static_resources.listeners[1].name", f"another listener is called 'l' too ({HERE})"),
        (
            "static_resources.listeners[1].address",
            f"another address to listen on is called '127.0.0.1:80' too ({HERE})",
        ),
    ]


def test_listeners_on_any_port_and_those_that_do_not_bind_share_an_address() -> None:
    unbound = listener(name="b", address=socket_address(port=80), bind_to_port=False)
    load(bootstrap([listener(address=socket_address(port=80)), unbound]))
    load(bootstrap([listener(), listener(name="b")]))


def test_transport_sockets() -> None:
    plain = {
        "name": "plain",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
    }
    assert load_listener(filter_chains=[chain(transport_socket=plain)]).filter_chains[0].transport_socket is None
    tls_type = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    tls = {"name": "tls", "typed_config": {"@type": f"type.googleapis.com/{tls_type}"}}
    assert refusals(bootstrap([listener(filter_chains=[chain(transport_socket=tls)])])) == [
        (
            f"{HERE}.filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates",
            "has no certificate",
        )
    ]
    both = {"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_string": "k"}}
    tls["typed_config"] |= {"common_tls_context": {"tls_certificates": [both]}}
    built = load_listener(filter_chains=[chain(transport_socket=tls, transport_socket_connect_timeout="2.5s")])
    secure = built.filter_chains[0]
    assert secure.transport_socket is not None
    assert secure.transport_socket.place.endswith("filter_chains[0].transport_socket.typed_config")
    assert secure.transport_socket_connect_timeout == 2.5


def test_a_balance_between_workers_is_ignored_with_a_warning() -> None:
    _, warnings = load(bootstrap([listener(connection_balance_config={"exact_balance": {}})]))
    ignored = "is ignored: connections are always spread evenly over workers"
    assert warnings == [f"configuration: {HERE}.connection_balance_config: {ignored}"]


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"address": None}, ".address", "is required"),
        ({"filter_chains": []}, ".filter_chains", "has no filter chain"),
        (
            {"address": socket_address("localhost")},
            ".address.socket_address.address",
            "a listener's address must be an IP address, and 'localhost' is none",
        ),
        ({"address": {"pipe": {"path": "x" * 108}}}, ".address.pipe.path", "is longer than the 107 bytes"),
        (
            {"address": {"socket_address": {"address": "::1", "port_value": 1, "protocol": "UDP"}}},
            ".address.socket_address.protocol",
            "UDP is not implemented",
        ),
        (
            {"address": {"socket_address": {"address": "::1", "named_port": "http"}}},
            ".address.socket_address.named_port",
            "named ports are not implemented",
        ),
        ({"udp_listener_config": {}}, ".udp_listener_config", "is not implemented by Mizzen"),
        (
            {"filter_chains": [chain({"prefix_ranges": [{"address_prefix": "ten", "prefix_len": 8}]})]},
            ".filter_chains[0].filter_chain_match.prefix_ranges[0]",
            "is no address range",
        ),
        (
            {
                "listener_filters": [
                    listener_filter("proxy_protocol.v3.ProxyProtocol", disallowed_versions=["V1", "V2"])
                ]
            },
            ".listener_filters[0].typed_config.disallowed_versions",
            "leaves no version of the PROXY protocol allowed",
        ),
    ],
)
def test_what_is_wrong_is_refused(fields: Document, path: str, problem: str) -> None:
    (found_path, found_problem), *rest = refusals(bootstrap([listener(**fields)]))
    assert rest == []
    assert found_path == HERE + path
    assert found_problem.startswith(problem)
