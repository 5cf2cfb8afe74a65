"""One exchange over HTTP/2, read with the h2 library: what is measured is first shown to be right."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.load import FailedRequests

Fields = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Response:
    """What came back: header fields and trailers by name, and the body."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)


def exchange(port: int, headers: Fields = (), body: bytes = b"", *, timeout_s: float = 5.0) -> Response:
    """A GET of `/`, or a POST of `body`, on a connection of its own with prior knowledge.

    Raises LookupError without the package `h2`, FailedRequests when the exchange breaks off, OSError.
    """
    try:
        from h2 import events
        from h2.connection import H2Connection
    except ImportError as error:
        raise LookupError("the Python package h2 is not installed") from error
    response, connection = Response(), H2Connection()
    connection.initiate_connection()
    pseudo = [(":method", "POST" if body else "GET"), (":scheme", "http"), (":authority", "backend"), (":path", "/")]
    connection.send_headers(1, [*pseudo, *headers], end_stream=not body)
    if body:
        connection.send_data(1, body, end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout_s) as client:
        while True:
            client.sendall(connection.data_to_send())
            received = client.recv(65_536)
            if not received:
                raise FailedRequests(f"port {port} closed an HTTP/2 connection after {response!r}")
            for event in connection.receive_data(received):
                if isinstance(event, events.ResponseReceived):
                    response.headers = _by_name(event.headers)
                elif isinstance(event, events.DataReceived):
                    response.body += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, events.TrailersReceived):
                    response.trailers = _by_name(event.headers)
                elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                    raise FailedRequests(f"port {port}: {event!r}")
                elif isinstance(event, events.StreamEnded):
                    return response


def _by_name(fields: Sequence[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in fields}


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def check(
    port: int, expected: bytes, headers: Fields = (), body: bytes = b"", trailers: dict[str, str] | None = None
) -> None:
    """Raise FailedRequests unless the exchange has status 200, the body `expected`, and the trailers, if any are given."""
    response = exchange(port, headers, body)
    if response.headers.get(":status") != "200" or response.body != expected:
        raise FailedRequests(f"port {port} answers {response.headers} and {response.body[:100]!r}")
    if trailers is not None and response.trailers != trailers:
        raise FailedRequests(f"port {port} answers with the trailers {response.trailers}, not {trailers}")
