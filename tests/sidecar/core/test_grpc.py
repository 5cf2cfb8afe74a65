"""What the proxy knows of gRPC: callers, statuses, messages."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.grpc import grpc_message, grpc_status_of, is_grpc, parse_grpc_status
from sidecar.core.head import RequestHead


@pytest.mark.parametrize(
    ("content_type", "yes"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc+", True),
        (b"application/grpc-web", False),
        (b"application/grpc; charset=utf-8", False),
        (b"application/grpcx", False),
        (b"Application/grpc", False),
        (b"", False),
    ],
)
def test_calls_are_known_by_their_content_type(content_type: bytes, yes: bool) -> None:
    assert is_grpc(RequestHead(b"POST", b"/", b"a", [(b"content-type", content_type)])) is yes


def test_the_status_of_an_http_status() -> None:
    known = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
    assert {status: grpc_status_of(status) for status in range(100, 600)} == {
        status: known.get(status, 2) for status in range(100, 600)
    }


@pytest.mark.parametrize(
    ("value", "status"),
    [(b"0", 0), (b"16", 16), (b"014", 14), (b"+14", 14), (b"17", 17), (b"", -1), (b"x", -1), (b"-1", -1), (b"1.0", -1)],
)
def test_statuses_as_they_are_written(value: bytes, status: int) -> None:
    assert parse_grpc_status(value) == status


def test_a_message_is_percent_encoded() -> None:
    assert grpc_message("100% ✓\r\n~ ok".encode()) == b"100%25 %E2%9C%93%0D%0A%7E ok"


@given(st.binary(max_size=80))
def test_any_message_comes_back_and_is_a_header_value(message: bytes) -> None:
    encoded = grpc_message(message)
    assert unquote_to_bytes(encoded) == message
    assert all(0x20 <= octet < 0x7F for octet in encoded)
