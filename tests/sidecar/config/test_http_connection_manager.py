"""The HTTP connection manager: defaults, every field, filter chains, upgrades, local replies."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.config.access_log import StatusCodeFilter
from sidecar.config.core_types import HeaderValueOption, SubstitutionFormatString
from sidecar.config.http2_protocol_options import Http2ProtocolOptions
from sidecar.config.http_connection_manager import HttpConnectionManager, InternalAddressConfig, UpgradeConfig
from sidecar.config.local_reply import LocalReplyConfig, ResponseMapper
from sidecar.config.protocol_options import (
    Http1ProtocolOptions,
    HttpProtocolOptions,
    PreserveCaseFormatter,
)
from sidecar.config.route import RouteConfiguration
from tests.sidecar.config.resources import (
    CORS,
    LOGGER,
    ROUTER,
    Document,
    bootstrap,
    chain,
    hcm,
    listener,
    load,
    load_listener,
    refusals,
)

HERE = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"


def load_hcm(**fields: Any) -> HttpConnectionManager:
    built = load_listener(filter_chains=[chain(None, hcm(**fields))]).filter_chains[0].filters[0].typed_config
    assert isinstance(built, HttpConnectionManager)
    return built


def test_a_connection_manager_with_little_has_the_defaults_of_envoy() -> None:
    built = load_hcm()
    assert built == HttpConnectionManager("http", RouteConfiguration("routes", ()), built.http_filters)
    assert built.common_http_protocol_options == HttpProtocolOptions(3600.0, max_headers_count=100)
    assert built.http_protocol_options == Http1ProtocolOptions()
    assert (built.codec_type, built.http2_protocol_options) == ("AUTO", Http2ProtocolOptions())
    assert (built.max_request_headers_kb, built.stream_idle_timeout, built.drain_timeout) == (60, 300.0, 5.0)
    assert (built.delayed_close_timeout, built.request_timeout, built.request_headers_timeout) == (1.0, 0.0, 0.0)
    assert (built.server_name, built.path_with_escaped_slashes_action) == (b"envoy", "KEEP_UNCHANGED")
    assert built.generate_request_id
    assert not built.normalize_path
    assert built.internal_address_config == InternalAddressConfig(False, ())


def test_every_plain_field() -> None:
    built = load_hcm(
        codec_type="HTTP1",
        add_user_agent=True,
        server_name="mizzen",
        server_header_transformation="PASS_THROUGH",
        scheme_header_transformation={"scheme_to_overwrite": "https"},
        max_request_headers_kb=8,
        stream_idle_timeout="0s",
        request_timeout="1.5s",
        request_headers_timeout="2s",
        drain_timeout="3s",
        delayed_close_timeout="0s",
        access_log=[{"name": "out", "typed_config": {"@type": f"{LOGGER}stream.v3.StdoutAccessLog"}}],
        use_remote_address=True,
        xff_num_trusted_hops=2,
        internal_address_config={"unix_sockets": True, "cidr_ranges": [{"address_prefix": "::1", "prefix_len": 128}]},
        skip_xff_append=True,
        via="mizzen",
        generate_request_id=False,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        proxy_100_continue=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        strip_any_host_port=True,
        strip_trailing_host_dot=True,
    )
    assert (built.codec_type, built.add_user_agent, built.server_name) == ("HTTP1", True, b"mizzen")
    assert (built.server_header_transformation, built.scheme_to_overwrite) == ("PASS_THROUGH", b"https")
    assert (built.max_request_headers_kb, built.stream_idle_timeout, built.request_timeout) == (8, 0.0, 1.5)
    assert (built.request_headers_timeout, built.drain_timeout, built.delayed_close_timeout) == (2.0, 3.0, 0.0)
    assert [log.name for log in built.access_log] == ["out"]
    assert (built.use_remote_address, built.xff_num_trusted_hops, built.skip_xff_append) == (True, 2, True)
    assert built.internal_address_config == InternalAddressConfig(True, (ip_network("::1/128"),))
    assert (built.via, built.generate_request_id, built.preserve_external_request_id) == (b"mizzen", False, True)
    assert (built.always_set_request_id_in_response, built.proxy_100_continue) == (True, True)
    assert built.forward_client_cert_details == "ALWAYS_FORWARD_ONLY"
    assert (built.normalize_path, built.merge_slashes) == (True, True)
    assert built.path_with_escaped_slashes_action == "UNESCAPE_AND_REDIRECT"
    assert (built.strip_matching_host_port, built.strip_any_host_port) == (False, True)
    assert built.strip_trailing_host_dot
    assert load_hcm(strip_matching_host_port=True).strip_matching_host_port


def test_protocol_options() -> None:
    preserve = {
        "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3"
        ".PreserveCaseFormatterConfig",
    }
    built = load_hcm(
        common_http_protocol_options={
            "idle_timeout": "1s",
            "max_connection_duration": "2s",
            "max_headers_count": 3,
            "max_stream_duration": "4s",
            "headers_with_underscores_action": "DROP_HEADER",
            "max_requests_per_connection": 5,
        },
        http_protocol_options={
            "allow_absolute_url": False,
            "accept_http_10": True,
            "default_host_for_http_10": "old.example",
            "header_key_format": {"stateful_formatter": {"name": "preserve", "typed_config": preserve}},
            "enable_trailers": True,
        },
    )
    assert built.common_http_protocol_options == HttpProtocolOptions(1.0, 2.0, 3, None, 4.0, "DROP_HEADER", 5)
    assert built.http_protocol_options == Http1ProtocolOptions(
        False,
        True,
        b"old.example",
        PreserveCaseFormatter(),
        True,
    )


@pytest.mark.parametrize("codec_type", ["AUTO", "HTTP1", "HTTP2"])
def test_codecs(codec_type: str) -> None:
    built = load_hcm(codec_type=codec_type, http2_protocol_options={"allow_connect": True})
    assert built.codec_type == codec_type
    assert built.http2_protocol_options == Http2ProtocolOptions(allow_connect=True)


def test_who_says_whether_a_malformed_message_ends_its_connection() -> None:
    def only_the_stream(**fields: Any) -> bool:
        return load_hcm(codec_type="HTTP2", **fields).http2_protocol_options.stream_error_on_invalid_http_messaging

    deprecated, override = "stream_error_on_invalid_http_messaging", "override_stream_error_on_invalid_http_message"
    assert not only_the_stream()
    assert only_the_stream(http2_protocol_options={deprecated: True})
    assert only_the_stream(http2_protocol_options={override: True})
    assert not only_the_stream(http2_protocol_options={deprecated: True, override: False})
    assert only_the_stream(stream_error_on_invalid_http_message=True)
    assert only_the_stream(stream_error_on_invalid_http_message=True, http2_protocol_options={})
    assert not only_the_stream(stream_error_on_invalid_http_message=True, http2_protocol_options={override: False})
    assert not only_the_stream(stream_error_on_invalid_http_message=False, http2_protocol_options={deprecated: True})
    assert not load_hcm(stream_error_on_invalid_http_message=False).http2_protocol_options.allow_connect


def test_upgrades() -> None:
    built = load_hcm(
        upgrade_configs=[
            {"upgrade_type": "WebSocket"},
            {"upgrade_type": "CONNECT", "enabled": False, "filters": [CORS, ROUTER]},
        ]
    )
    websocket, connect = built.upgrade_configs
    assert websocket == UpgradeConfig(b"websocket", None, True)
    assert (connect.upgrade_type, connect.enabled) == (b"connect", False)
    assert connect.filters is not None
    assert [each.name for each in connect.filters] == ["cors", "router"]


def test_local_replies() -> None:
    status = {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "x"}}}}
    header = {"key": "X-Reply", "value": "local"}
    built = load_hcm(
        local_reply_config={
            "mappers": [
                {
                    "filter": status,
                    "status_code": 503,
                    "body": {"inline_string": "sorry"},
                    "body_format_override": {"json_format": {"b": "%LOCAL_REPLY_BODY%", "a": 1}},
                    "headers_to_add": [
                        {"header": header, "append": False},
                        {"header": header, "append_action": "ADD_IF_ABSENT", "keep_empty_value": True},
                    ],
                }
            ],
            "body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE%"}, "content_type": "text/x"},
        }
    )
    assert built.local_reply_config == LocalReplyConfig(
        (
            ResponseMapper(
                StatusCodeFilter("GE", 500),
                503,
                b"sorry",
                SubstitutionFormatString(None, {"a": 1, "b": "%LOCAL_REPLY_BODY%"}, False, b""),
                (
                    HeaderValueOption(b"x-reply", "local", "OVERWRITE_IF_EXISTS_OR_ADD", False),
                    HeaderValueOption(b"x-reply", "local", "ADD_IF_ABSENT", True),
                ),
            ),
        ),
        SubstitutionFormatString("%RESPONSE_CODE%", None, False, b"text/x"),
    )


def test_the_request_id_extension_of_envoy_is_accepted() -> None:
    uuid = {
        "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "use_request_id_for_trace_sampling": False,
    }
    _, warnings = load(
        bootstrap([listener(filter_chains=[chain(None, hcm(request_id_extension={"typed_config": uuid}))])])
    )
    assert len(warnings) == 1
    assert "use_request_id_for_trace_sampling: is ignored: nothing is traced" in warnings[0]


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"codec_type": "HTTP3"}, ".codec_type", "HTTP3 is not implemented by Mizzen"),
        ({"http3_protocol_options": {}}, ".http3_protocol_options", "is not implemented by Mizzen"),
        (
            {"stream_error_on_invalid_http_message": True},
            ".stream_error_on_invalid_http_message",
            "holds for HTTP/1 too",
        ),
        (
            {"route_config": None, "rds": {"config_source": {"path": "/dev/null"}}},
            ".rds.route_config_name",
            "is required",
        ),
        (
            {
                "route_config": None,
                "scoped_routes": {
                    "name": "s",
                    "scope_key_builder": {
                        "fragments": [
                            {"header_value_extractor": {"name": "x", "element": {"separator": "=", "key": "k"}}}
                        ]
                    },
                    "scoped_rds": {"scoped_rds_config_source": {"ads": {}}},
                    "rds_config_source": {"ads": {}},
                },
            },
            ".scoped_routes",
            "is not implemented by Mizzen",
        ),
        (
            {"strip_any_host_port": True, "strip_matching_host_port": True},
            ".strip_any_host_port",
            "is set together with strip_matching_host_port",
        ),
        ({"http_filters": [ROUTER, ROUTER]}, ".http_filters[0]", "is a terminal filter, and others follow it"),
        ({"http_filters": [CORS]}, ".http_filters[0]", "is the last of its filter chain, and not the router"),
        ({"http_filters": [{**ROUTER, "disabled": True}]}, ".http_filters[0].disabled", "must not be set"),
        (
            {"upgrade_configs": [{"upgrade_type": "a"}, {"upgrade_type": "A"}]},
            ".upgrade_configs[1].upgrade_type",
            "names an upgrade that another one names too",
        ),
        (
            {"upgrade_configs": [{"upgrade_type": "a", "filters": [CORS]}]},
            ".upgrade_configs[0].filters[0]",
            "is the last of its filter chain, and not the router",
        ),
        (
            {"http_protocol_options": {"allow_chunked_length": True}},
            ".http_protocol_options.allow_chunked_length",
            "is not implemented by Mizzen",
        ),
        (
            {"tracing": {}, "http_filters": [ROUTER]},
            ".tracing",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_what_is_wrong_is_refused(fields: Document, path: str, problem: str) -> None:
    found = refusals(bootstrap([listener(filter_chains=[chain(None, hcm(**fields))])]))
    assert found[0][0] == HERE + path
    assert found[0][1].startswith(problem)
    assert {found_path for found_path, _ in found} == {HERE + path}
