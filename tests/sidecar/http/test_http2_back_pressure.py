"""Whoever had no room and has some again is all that it takes for the other side to go on, whatever either of them speaks.

Nothing else happens in between: a window that is given back must not wait for other traffic on its connection.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.http2_peer import Field
from tests.sidecar.http.running import GET, Client, Host, Sidecar, bootstrap, running
from tests.sidecar.http.test_http2_timers import GET as GET2
from tests.sidecar.http.test_http2_timers import Peer, over_http2

PIECE = b"x" * 5000
PIECES = 400
LIMIT = {"per_connection_buffer_limit_bytes": 10_000}
WINDOWS = {"initial_stream_window_size": 65535, "initial_connection_window_size": 65535}
SIZE = b"%d" % (PIECES * len(PIECE))
LENGTH = b"Content-Length: " + SIZE + b"\r\n\r\n"
POST2: list[Field] = [(b":method", b"POST"), *GET2[1:], (b"content-length", SIZE)]
OK2: list[Field] = [(b":status", b"200"), (b"content-length", SIZE)]
HTTP1, HTTP2 = "HTTP/1.1", "HTTP/2"


class Sender:
    """Who sends ``PIECES`` of a body, each when there is room for it: the window's, or until the sidecar stops reading."""

    def __init__(self, end: Client | Host | Peer, stream_id: int = 0) -> None:
        self.end = end
        self.stream_id = stream_id
        self.sent = 0

    def go_on(self) -> None:
        """Send as much as there is room for."""
        while self.sent < PIECES and self._send():
            self.sent += 1

    def _send(self) -> bool:
        if not isinstance(self.end, Peer):
            if not self.end.transport.reading:
                return False
            self.end.send(PIECE)
            return True
        self.end.seen()
        wire = self.end.wire
        stream = wire.streams[self.stream_id]
        if len(PIECE) > min(stream.window, wire.window):
            return False
        assert wire.data(stream, PIECE, self.sent + 1 == PIECES)
        wire.flush()
        return True


class Receiver:
    """Who takes nothing until it is told to take everything. ``by_windows``: by HTTP/2's, else its socket is full."""

    def __init__(self, end: Client | Host | Peer, by_windows: bool) -> None:
        self.end = end
        self.by_windows = by_windows
        self.data = b""
        if not by_windows:
            self._transport.room = len(self._transport.written)

    @property
    def _transport(self) -> Any:
        return (self.end.end if isinstance(self.end, Peer) else self.end).transport

    def take(self) -> None:
        """Have room for what has come; whatever comes then has none again."""
        if not self.by_windows:
            self._transport.take(self._transport.get_write_buffer_size())
        if not isinstance(self.end, Peer):
            self.data += self.end.receive().rpartition(b"\r\n")[2]
            return
        for one in self.end.seen():
            self.data += one[2] if one[0] == "data" else b""
        for stream_id in list(self.end.wire.received):
            self.end.wire.give_back(stream_id)
        self.end.wire.flush()


def sidecar_config(host: str) -> dict[str, Any]:
    config = bootstrap(manager={"http2_protocol_options": WINDOWS}, listener=LIMIT, clusters={"up": LIMIT})
    if host == HTTP2:
        config["static_resources"]["clusters"][0].update(over_http2(WINDOWS))
    return config


def begin(sidecar: Sidecar, client: str, host: str, *, upload: bool) -> tuple[Any, Any]:
    """The client and the host of a request whose head has come to the host."""
    near: Client | Peer
    if client == HTTP2:
        near = Peer(sidecar.client(), False)
        near.wire.open(POST2 if upload else GET2, not upload)
        near.wire.flush()
    else:
        near = sidecar.client().send(b"POST / HTTP/1.1\r\nHost: a\r\n" + LENGTH if upload else GET)
    if host == HTTP1:
        sidecar.host.receive()
        return near, sidecar.host
    far = Peer(sidecar.host, True)
    assert "head" in far.kinds()
    return near, far


def run(sender: Sender, receiver: Receiver) -> None:
    """Send everything. When the receiver has all that was sent, the sender has room again."""
    stops = 0
    while sender.sent < PIECES:
        before = sender.sent
        sender.go_on()
        assert sender.sent > before, f"stands still after {before} of {PIECES} pieces"
        stops += 1
        takes = 0
        while len(receiver.data) < sender.sent * len(PIECE):
            receiver.take()
            takes += 1
            assert takes <= PIECES, f"{len(receiver.data)} octets of {sender.sent * len(PIECE)} have come"
    assert stops > 2
    assert len(receiver.data) == PIECES * len(PIECE)


# Who is without room, for which reason, and who sends to it.
WAYS = pytest.mark.parametrize(
    ("receiver", "full", "sender"),
    [
        (receiver, full, sender)
        for receiver, full in [(HTTP1, "socket"), (HTTP2, "socket"), (HTTP2, "window")]
        for sender in (HTTP1, HTTP2)
    ],
)


@WAYS
def test_a_response_goes_on_when_the_client_has_room(receiver: str, full: str, sender: str) -> None:
    with running(sidecar_config(sender)) as sidecar:
        client, host = begin(sidecar, receiver, sender, upload=False)
        taking = Receiver(client, full == "window")
        stream_id = 0
        if isinstance(host, Peer):
            (stream_id,) = host.wire.streams
            host.wire.head(host.wire.streams[stream_id], OK2, False)
            host.wire.flush()
        else:
            host.send(b"HTTP/1.1 200 OK\r\n" + LENGTH)
        run(Sender(host, stream_id), taking)
        assert sidecar.stat("cluster.up.upstream_flow_control_paused_reading_total") > 1


@WAYS
def test_a_request_goes_on_when_the_host_has_room(receiver: str, full: str, sender: str) -> None:
    with running(sidecar_config(receiver)) as sidecar:
        client, host = begin(sidecar, sender, receiver, upload=True)
        run(Sender(client, 1), Receiver(host, full == "window"))
        assert sidecar.stat("http.in.downstream_flow_control_paused_reading_total") > 1
