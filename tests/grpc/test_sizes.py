"""Big messages, big metadata, and compressed messages."""

from __future__ import annotations

import os
from collections.abc import Iterator

import grpc
import pytest

from tests.grpc import messages as m
from tests.grpc.client import PlainStub, TestStub
from tests.grpc.conftest import Setting
from tests.grpc.http2_client import Http2Client
from tests.grpc.service import TEST_SERVICE
from tests.grpc.subjects import stats
from tests.grpc.test_interop import BOUND, LARGE_REQUEST, LARGE_RESPONSE, failure, large

MEGABYTE = 1 << 20


@pytest.fixture
def channel(setting: Setting, listener_name: str) -> Iterator[grpc.Channel]:
    with setting.channel(listener_name) as channel:
        yield channel


def test_a_message_of_16_megabytes(channel: grpc.Channel) -> None:
    message = os.urandom(16 * MEGABYTE)
    assert PlainStub(channel).echo(message, timeout=BOUND) == message


def test_megabytes_in_both_directions_at_once(channel: grpc.Channel) -> None:
    messages = [bytes([number]) * (4 * MEGABYTE) for number in range(6)]
    found = PlainStub(channel).converse(iter(messages), timeout=BOUND)
    assert list(found) == [*messages, b"bye"]


def test_many_small_messages_in_one_stream(channel: grpc.Channel) -> None:
    messages = [b"%d" % number for number in range(2000)]
    assert list(PlainStub(channel).converse(iter(messages), timeout=BOUND)) == [*messages, b"bye"]


@pytest.mark.parametrize("size", [0, 1, 1000, 15_000])
def test_metadata_in_both_directions(channel: grpc.Channel, size: int) -> None:
    """A few values, 30 KB with the largest; those of -bin keys are any octets."""
    metadata = [("x-text", "v" * size), ("x-data-bin", os.urandom(size)), ("x-twice", "1"), ("x-twice", "2")]
    _, call = PlainStub(channel).metadata.with_call(b"", metadata=metadata, timeout=BOUND)
    for found in (call.initial_metadata(), call.trailing_metadata()):
        assert [
            (one.key, one.value) for one in found if one.key.startswith("x-") and one[0] in dict(metadata)
        ] == metadata


def test_many_metadata(channel: grpc.Channel) -> None:
    metadata = [(f"x-name-{number}", f"value {number}") for number in range(80)]
    _, call = PlainStub(channel).metadata.with_call(b"", metadata=metadata, timeout=BOUND)
    for found in (call.initial_metadata(), call.trailing_metadata()):
        assert [one for one in map(tuple, found) if one[0].startswith("x-name-")] == metadata


def test_metadata_beyond_the_limit_fails_one_call_only(channel: grpc.Channel, setting: Setting) -> None:
    stub = PlainStub(channel)
    code, _ = failure(lambda: stub.echo(b"", metadata=[("x-large", "v" * 120_000)], timeout=BOUND))
    assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
    assert stub.echo(b"next", timeout=BOUND) == b"next"


def received(setting: Setting, listener_name: str) -> tuple[int, int]:
    """The octets of messages' bodies that the proxy has taken from clients and from the servers of a listener."""
    found = stats(setting.proxy, "_cx_rx_bytes_total")
    cluster = {"plain": "grpc", "tls": "grpc_tls"}[listener_name]
    return (
        found[f"http.{listener_name}.downstream_cx_rx_bytes_total"],
        found[f"cluster.{cluster}.upstream_cx_rx_bytes_total"],
    )


@pytest.mark.parametrize("request_compressed", [False, True])
@pytest.mark.parametrize("response_compressed", [False, True])
def test_compressed_unary(
    setting: Setting, listener_name: str, request_compressed: bool, response_compressed: bool
) -> None:
    """``client_compressed_unary`` and ``server_compressed_unary``: that it was compressed shows in what was received."""
    before = received(setting, listener_name)
    with setting.channel(listener_name) as channel:
        found = TestStub(channel).unary_call(
            large(response_compressed=m.BoolValue(value=response_compressed)),
            compression=grpc.Compression.Gzip if request_compressed else grpc.Compression.NoCompression,
            timeout=BOUND,
        )
        assert found.payload.body == bytes(LARGE_RESPONSE)
        sent, came = (now - then for now, then in zip(received(setting, listener_name), before, strict=True))
    assert (sent < LARGE_REQUEST / 10) == request_compressed, sent
    assert (came < LARGE_RESPONSE / 10) == response_compressed, came


def test_client_compressed_streaming(setting: Setting, listener_name: str) -> None:
    before = received(setting, listener_name)[0]
    with setting.channel(listener_name, compression=grpc.Compression.Gzip) as channel:
        requests = [m.StreamingInputCallRequest(payload=m.payload(size)) for size in (27182, 45904)]
        found = TestStub(channel).streaming_input_call(iter(requests), timeout=BOUND)
        assert found.aggregated_payload_size == 73086
        assert received(setting, listener_name)[0] - before < 20_000


def test_server_compressed_streaming(setting: Setting, listener_name: str) -> None:
    """The first message compressed, the second not."""
    before = received(setting, listener_name)[1]
    parameters = [
        m.ResponseParameters(size=31415, compressed=m.BoolValue(value=True)),
        m.ResponseParameters(size=92653, compressed=m.BoolValue(value=False)),
    ]
    with setting.channel(listener_name) as channel:
        request = m.StreamingOutputCallRequest(response_parameters=parameters)
        found = TestStub(channel).streaming_output_call(request, timeout=BOUND)
        assert [len(one.payload.body) for one in found] == [31415, 92653]
        assert 92653 < received(setting, listener_name)[1] - before < 92653 + 20_000


@pytest.mark.parametrize("compressed", [False, True])
def test_the_flag_of_a_message(setting: Setting, compressed: bool) -> None:
    """What says that a message is compressed passes untouched: its first octet, and ``grpc-encoding``."""
    asked = m.SimpleRequest(response_size=1000, response_compressed=m.BoolValue(value=compressed)).SerializeToString()
    message = b"\0" + len(asked).to_bytes(4, "big") + asked
    fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-accept-encoding", "identity,gzip")]
    with Http2Client(setting.proxy.ports["plain"]) as client:
        found = client.get(f"/{TEST_SERVICE}/UnaryCall", body=message, fields=fields)
    assert (found.status, found.field("grpc-status")) == (200, "0")
    assert found.body[0] == compressed
    assert found.field("grpc-encoding") == ("gzip" if compressed else None)
    assert int.from_bytes(found.body[1:5], "big") == len(found.body) - 5
