"""Requests written before a run, the clients that replay them, and the service that hardly works."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hpack import Decoder

from benchmarks.backends import frames_backend
from benchmarks.exchange import check, exchange
from benchmarks.h2load import Shape
from benchmarks.http2_backend import grpc_message
from benchmarks.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    PREFACE,
    RST_STREAM,
    frame,
    integer,
    opening,
)
from benchmarks.load import FailedRequests
from benchmarks.replay import Refused, is_ok, replay
from benchmarks.streaming import MESSAGE, stream
from benchmarks.traffic import http2_calls

GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def payload(whole: bytes) -> bytes:
    return whole[HEAD_BYTES:]


@pytest.mark.parametrize("indexed", [True, False])
def test_every_request_decodes_to_its_own_fields(indexed: bool) -> None:
    decoder = Decoder()
    for number, request in enumerate(http2_calls.requests(range(500, 1700), indexed=indexed)):
        assert (request[3], request[4]) == (HEADERS, END_HEADERS | END_STREAM)
        assert int.from_bytes(request[5:9], "big") == 2 * number + 1
        assert decoder.decode(payload(request), raw=True) == http2_calls.fields(500 + number)
    assert bool(decoder.header_table.dynamic_entries) is indexed


def test_indexed_requests_turn_the_dynamic_table_over_and_are_small() -> None:
    blocks = [payload(request) for request in http2_calls.requests(range(200), indexed=True)]
    decoder = Decoder()
    tables = []
    for block in blocks:
        decoder.decode(block, raw=True)
        tables.append({value for _, value in decoder.header_table.dynamic_entries})
    assert all(http2_calls.request_id(number) in table for number, table in enumerate(tables))
    assert http2_calls.request_id(0) not in tables[-1]
    assert 150 < sum(http2_calls.AUTHORITY in table for table in tables) < 200
    literal = [payload(request) for request in http2_calls.requests(range(200), indexed=False)]
    assert sum(map(len, blocks)) < 0.6 * sum(map(len, literal))


def test_request_ids_never_repeat_and_paths_do_after_a_thousand() -> None:
    assert len({http2_calls.request_id(number) for number in range(5000)}) == 5000
    assert len(http2_calls.request_id(0)) == 36
    assert len(set(http2_calls.PATHS)) == 1000


def test_traffic_is_written_by_connection(tmp_path: Path) -> None:
    traffic = http2_calls.write(tmp_path / "traffic", Shape(2, 4), 10, indexed=True)
    assert traffic.frames(0).read_bytes() == b"".join(http2_calls.requests(range(5), indexed=True))
    assert traffic.frames(1).read_bytes() == b"".join(http2_calls.requests(range(5, 10), indexed=True))


@pytest.mark.parametrize(
    ("block", "ok"),
    [
        (b"\x88", True),
        (b"\x20\x88\x61", True),
        (integer(4096, 5, 0x20) + b"\x88", True),
        (b"\x8d", False),
        (b"\x20\x8d", False),
        (b"\x20", False),
    ],
)
def test_status_200_is_told_after_table_size_updates(block: bytes, ok: bool) -> None:
    assert is_ok(block) is ok


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A listener whose one connection gets `answer`, written for stream 0, for every request."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(opening())
            data = client.recv(65_536)
            while len(data) < len(PREFACE):
                data += client.recv(65_536)
            data = data[len(PREFACE) :]
            while True:
                while len(data) >= HEAD_BYTES and len(data) >= HEAD_BYTES + int.from_bytes(data[:3], "big"):
                    whole, data = split(data)
                    if whole[3] == HEADERS:
                        client.sendall(for_stream(answer, whole[5:9]))
                received = client.recv(65_536)
                if not received:
                    return
                data += received

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)
    assert not thread.is_alive()


def split(data: bytes) -> tuple[bytes, bytes]:
    end = HEAD_BYTES + int.from_bytes(data[:3], "big")
    return data[:end], data[end:]


def for_stream(answer: bytes, number: bytes) -> bytes:
    out = b""
    while answer:
        whole, answer = split(answer)
        out += whole[:5] + number + whole[HEAD_BYTES:]
    return out


def test_replay_ends_with_its_requests_and_counts_what_came(tmp_path: Path) -> None:
    traffic = http2_calls.write(tmp_path / "traffic", Shape(1, 4), 50, indexed=True)
    ok = frame(HEADERS, END_HEADERS, 0, b"\x88") + frame(DATA, END_STREAM, 0, b"body")
    with answering(ok) as port:
        figures = replay(port, traffic, 30.0)
    assert (figures["requests"], figures["body_bytes"]) == (50, 200)
    assert 0 < figures["seconds"] < 30


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (frame(HEADERS, END_HEADERS | END_STREAM, 0, b"\x8d"), "began with"),
        (frame(RST_STREAM, 0, 0, b"\0\0\0\2"), "the peer sent"),
        (frame(GOAWAY, 0, 0, b"\0" * 8), "the peer sent"),
    ],
)
def test_replay_refuses_anything_but_200(tmp_path: Path, answer: bytes, named: str) -> None:
    traffic = http2_calls.write(tmp_path / "traffic", Shape(1, 1), 2, indexed=False)
    with answering(answer) as port, pytest.raises(Refused, match=named):
        replay(port, traffic, 30.0)


@pytest.mark.parametrize("length", [0, 100, 10 * 1024])
def test_the_unary_service_answers_with_a_message_as_long(tmp_path: Path, length: int) -> None:
    with frames_backend(tmp_path, "unary") as backend:
        response = exchange(backend.http2_port, GRPC, grpc_message(length))
    assert response.headers == {":status": "200", "content-type": "application/grpc"}
    assert response.body == grpc_message(length)
    assert response.trailers == {"grpc-status": "0"}


def test_the_echo_service_and_the_streams_that_go_to_and_fro(tmp_path: Path) -> None:
    with frames_backend(tmp_path, "echo") as backend:
        check(backend.http2_port, MESSAGE, GRPC, MESSAGE, {"grpc-status": "0"})
        figures = stream(backend.http2_port, 2, 3, 0.2)
    assert figures["round_trips"] == int(figures["round_trips"]) >= 6


def test_streams_that_are_reset_do_not_count(tmp_path: Path) -> None:
    with answering(frame(RST_STREAM, 0, 0, b"\0\0\0\2")) as port, pytest.raises(Refused):
        stream(port, 1, 1, 5.0)


def test_a_check_names_what_is_wrong(tmp_path: Path) -> None:
    with frames_backend(tmp_path, "unary") as backend:
        with pytest.raises(FailedRequests, match="answers"):
            check(backend.http2_port, b"another body", GRPC, MESSAGE)
        with pytest.raises(FailedRequests, match="trailers"):
            check(backend.http2_port, MESSAGE, GRPC, MESSAGE, {"grpc-status": "14"})
