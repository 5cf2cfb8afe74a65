"""The options of HTTP/2 connections: defaults, every field, what may not be said together."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from sidecar.codec.http2_options import Http2Options
from sidecar.config.http2_protocol_options import Http2ProtocolOptions, KeepaliveSettings, parse_http2_protocol_options
from tests.sidecar.config.building import Document, build, build_with_warnings, problems

TYPE = "envoy.config.core.v3.Http2ProtocolOptions"
MIB = 1024 * 1024


def options(**document: Any) -> Http2ProtocolOptions:
    return build(TYPE, document, parse_http2_protocol_options)


def custom(*pairs: tuple[int, int]) -> Document:
    return {"custom_settings_parameters": [{"identifier": name, "value": value} for name, value in pairs]}


def test_the_defaults_are_those_of_the_codec() -> None:
    assert options() == Http2ProtocolOptions() == parse_http2_protocol_options(None)
    configured, codec = Http2ProtocolOptions(), Http2Options()
    shared = {each.name for each in fields(configured)} & {each.name for each in fields(codec)}
    assert {name for name in shared if getattr(configured, name) != getattr(codec, name)} == set()
    assert {each.name for each in fields(configured)} - shared == {"connection_keepalive"}


def test_every_field() -> None:
    built = options(
        hpack_table_size=0,
        max_concurrent_streams=1,
        initial_stream_window_size=65535,
        initial_connection_window_size=2147483647,
        allow_connect=True,
        max_outbound_frames=2,
        max_outbound_control_frames=3,
        max_consecutive_inbound_frames_with_empty_payload=0,
        max_inbound_priority_frames_per_stream=4,
        max_inbound_window_update_frames_per_data_frame_sent=5,
        override_stream_error_on_invalid_http_message=True,
        custom_settings_parameters=[{"identifier": 0xF000, "value": 6}, {"identifier": 2, "value": 0}],
        connection_keepalive={
            "timeout": "0.5s", "interval": "30s", "interval_jitter": {"value": 0}, "connection_idle_interval": "10s"
        },
    )  # fmt: skip
    assert built == Http2ProtocolOptions(
        0,
        1,
        65535,
        2147483647,
        True,
        2,
        3,
        0,
        4,
        5,
        True,
        ((0xF000, 6), (2, 0)),
        KeepaliveSettings(0.5, 30.0, 0.0, 10.0),
    )


def test_keepalive_without_an_interval_sends_nothing_by_itself() -> None:
    assert options(connection_keepalive={"timeout": "1s"}).connection_keepalive == KeepaliveSettings(
        1.0, 0.0, 15.0, 0.0
    )


def test_one_parameter_said_twice_alike_is_one() -> None:
    assert options(**custom((9, 1), (9, 1))).custom_settings_parameters == ((9, 1),)


def test_a_choice_of_codec_is_ignored() -> None:
    _, warnings = build_with_warnings(TYPE, {"use_oghttp2_codec": True}, parse_http2_protocol_options)
    assert len(warnings) == 1
    assert "use_oghttp2_codec: is ignored: there is one HTTP/2 codec" in warnings[0]


@pytest.mark.parametrize(
    ("document", "path", "problem"),
    [
        ({"allow_metadata": True}, "allow_metadata", "is not implemented by Mizzen"),
        ({"max_metadata_size": 5}, "max_metadata_size", "is not implemented by Mizzen"),
        ({"max_concurrent_streams": 0}, "max_concurrent_streams", "must be"),
        ({"max_concurrent_streams": 2147483648}, "max_concurrent_streams", "must be"),
        ({"initial_stream_window_size": 65534}, "initial_stream_window_size", "must be"),
        ({"initial_connection_window_size": 65534}, "initial_connection_window_size", "must be"),
        ({"max_outbound_frames": 0}, "max_outbound_frames", "must be"),
        ({"max_outbound_control_frames": 0}, "max_outbound_control_frames", "must be"),
        ({"connection_keepalive": {"interval": "1s"}}, "connection_keepalive.timeout", "is required"),
        ({"connection_keepalive": {"interval": "0s", "timeout": "1s"}}, "connection_keepalive.interval", "must be"),
        (custom((1, 5)), "custom_settings_parameters[0].identifier", "1 is what hpack_table_size sets"),
        (custom((3, 5)), "custom_settings_parameters[0].identifier", "3 is what max_concurrent_streams sets"),
        (custom((4, 5)), "custom_settings_parameters[0].identifier", "4 is what initial_stream_window_size sets"),
        (custom((8, 0)), "custom_settings_parameters[0].identifier", "8 is what allow_connect sets"),
        (custom((5, 5)), "custom_settings_parameters[0].identifier", "SETTINGS_MAX_FRAME_SIZE cannot be set"),
        (custom((6, 5)), "custom_settings_parameters[0].identifier", "SETTINGS_MAX_HEADER_LIST_SIZE cannot be set"),
        (custom((2, 1)), "custom_settings_parameters[0].value", "switches server push on"),
        (custom((9, 1), (9, 2)), "custom_settings_parameters[1].identifier", "another one gives 9 another value"),
        (custom((65536, 1)), "custom_settings_parameters[0].identifier", "must be"),
    ],
)
def test_what_is_wrong_is_refused(document: Document, path: str, problem: str) -> None:
    found = problems(TYPE, document, parse_http2_protocol_options)
    assert [path for path, _ in found] == [path]
    assert found[0][1].startswith(problem)
