"""gRPC's interoperability test cases, by their names, that need no cloud account; sizes are those of the descriptions."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.grpc import messages as m
from tests.grpc.client import TestStub
from tests.grpc.conftest import Setting
from tests.grpc.service import ECHO_INITIAL, ECHO_TRAILING

BOUND = 20.0  # seconds, of any call that should end by itself
LARGE_REQUEST, LARGE_RESPONSE = 271828, 314159
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"


@pytest.fixture
def stub(setting: Setting, listener_name: str) -> Iterator[TestStub]:
    with setting.channel(listener_name) as channel:
        yield TestStub(channel)


def large(**fields: Any) -> Any:
    return m.SimpleRequest(response_size=LARGE_RESPONSE, payload=m.payload(LARGE_REQUEST), **fields)


def output(*sizes: int, request: int = 0, **fields: Any) -> Any:
    parameters = [m.ResponseParameters(size=size) for size in sizes]
    return m.StreamingOutputCallRequest(response_parameters=parameters, payload=m.payload(request), **fields)


class Requests:
    """Messages of a call that are said one by one; iterating is what grpcio does."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: Any) -> None:
        self._queue.put(message)

    def half_close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call, or an iteration over its responses, failed."""
    with pytest.raises(grpc.RpcError) as caught:
        if callable(call):
            call()
        else:
            list(call)
    return caught.value.code(), caught.value.details()


def test_empty_unary(stub: TestStub) -> None:
    assert stub.empty_call(m.Empty(), timeout=BOUND) == m.Empty()


def test_large_unary(stub: TestStub) -> None:
    assert stub.unary_call(large(), timeout=BOUND).payload.body == bytes(LARGE_RESPONSE)


def test_client_streaming(stub: TestStub) -> None:
    requests = (m.StreamingInputCallRequest(payload=m.payload(size)) for size in REQUEST_SIZES)
    assert stub.streaming_input_call(requests, timeout=BOUND).aggregated_payload_size == sum(REQUEST_SIZES)


def test_server_streaming(stub: TestStub) -> None:
    found = stub.streaming_output_call(output(*RESPONSE_SIZES), timeout=BOUND)
    assert tuple(len(one.payload.body) for one in found) == RESPONSE_SIZES


def test_ping_pong(stub: TestStub) -> None:
    requests = Requests()
    call = stub.full_duplex_call(iter(requests), timeout=BOUND)
    for request, response in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        requests.send(output(response, request=request))
        assert len(next(call).payload.body) == response
    requests.half_close()
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_half_duplex(stub: TestStub) -> None:
    """Of an older set of cases: all responses come behind the half close."""
    requests = (output(size) for size in RESPONSE_SIZES)
    found = stub.half_duplex_call(requests, timeout=BOUND)
    assert tuple(len(one.payload.body) for one in found) == RESPONSE_SIZES


def test_empty_stream(stub: TestStub) -> None:
    call = stub.full_duplex_call(iter(()), timeout=BOUND)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("streaming", [False, True])
def test_custom_metadata(stub: TestStub, streaming: bool) -> None:
    metadata = [(ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab")]
    if streaming:
        requests = iter([output(LARGE_RESPONSE, request=LARGE_REQUEST)])
        call = stub.full_duplex_call(requests, metadata=metadata, timeout=BOUND)
        assert [len(one.payload.body) for one in call] == [LARGE_RESPONSE]
    else:
        response, call = stub.unary_call.with_call(large(), metadata=metadata, timeout=BOUND)
        assert len(response.payload.body) == LARGE_RESPONSE
    assert dict(call.initial_metadata())[ECHO_INITIAL] == "test_initial_metadata_value"
    assert dict(call.trailing_metadata())[ECHO_TRAILING] == b"\xab\xab\xab"


@pytest.mark.parametrize("message", ["test status message", SPECIAL], ids=["plain", "special"])
def test_status_code_and_message(stub: TestStub, message: str) -> None:
    """``status_code_and_message`` and ``special_status_message``, on a unary and a streaming call."""
    wanted = m.EchoStatus(code=2, message=message)
    unary = lambda: stub.unary_call(m.SimpleRequest(response_status=wanted), timeout=BOUND)  # noqa: E731
    streaming = stub.full_duplex_call(iter([output(response_status=wanted)]), timeout=BOUND)
    assert failure(unary) == failure(streaming) == (grpc.StatusCode.UNKNOWN, message)


def test_unimplemented_method(stub: TestStub) -> None:
    assert failure(lambda: stub.unimplemented_call(m.Empty(), timeout=BOUND))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_unimplemented_service(stub: TestStub) -> None:
    assert failure(lambda: stub.unimplemented_service(m.Empty(), timeout=BOUND))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_cancel_after_begin(stub: TestStub) -> None:
    requests = Requests()
    call = stub.streaming_input_call.future(iter(requests), timeout=BOUND)
    call.cancel()
    requests.half_close()
    assert call.cancelled()
    assert call.code() is grpc.StatusCode.CANCELLED


def test_cancel_after_first_response(stub: TestStub) -> None:
    requests = Requests()
    call = stub.full_duplex_call(iter(requests), timeout=BOUND)
    requests.send(output(31415, request=27182))
    assert len(next(call).payload.body) == 31415
    call.cancel()
    requests.half_close()
    assert failure(call)[0] is grpc.StatusCode.CANCELLED


def test_timeout_on_sleeping_server(stub: TestStub) -> None:
    requests = Requests()
    request = output(31415, request=27182)
    request.response_parameters[0].interval_us = 200_000
    requests.send(request)
    call = stub.full_duplex_call(iter(requests), timeout=0.001)
    assert failure(call)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    requests.half_close()


def test_rpc_soak(stub: TestStub) -> None:
    """One channel, one call after another."""
    took = []
    for _ in range(100):
        began = time.monotonic()
        assert len(stub.unary_call(large(), timeout=BOUND).payload.body) == LARGE_RESPONSE
        took.append(time.monotonic() - began)
    assert max(took) < 1.0, sorted(took)[-5:]


def test_channel_soak(setting: Setting, listener_name: str) -> None:
    """A new channel for each call."""
    for _ in range(30):
        with setting.channel(listener_name) as channel:
            assert len(TestStub(channel).unary_call(large(), timeout=BOUND).payload.body) == LARGE_RESPONSE


def test_concurrent_large_unary(stub: TestStub) -> None:
    """100 calls at once on one channel."""
    calls = [stub.unary_call.future(large(), timeout=BOUND) for _ in range(100)]
    assert {len(call.result().payload.body) for call in calls} == {LARGE_RESPONSE}


def test_many_threads_share_a_channel(stub: TestStub) -> None:
    problems: list[object] = []

    def work() -> None:
        try:
            for size in RESPONSE_SIZES:
                found = stub.unary_call(m.SimpleRequest(response_size=size), timeout=BOUND)
                assert len(found.payload.body) == size
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(BOUND)
    assert not problems
