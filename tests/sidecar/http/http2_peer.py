"""The other end of an HTTP/2 connection of the sidecar: frames made by hand, and what came back, by its meaning.

It keeps to the rules as a peer has to (windows above all), and to nothing else: what it sends next is up to the test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from struct import unpack
from typing import Any, Final

from hpack import Decoder, NeverIndexedHeaderTuple

from sidecar.codec import http2_frames as wire
from sidecar.codec.hpack_huffman import encode as huffman_encode
from sidecar.codec.hpack_table import FIRST_DYNAMIC, OVERHEAD, STATIC_INDEX, STATIC_NAME, VOLATILE, integer

Field = tuple[bytes, bytes]

_FRAME: Final = 16384

# what nghttp2 does not index
_PASSING: Final = frozenset(
    (b":path", b"age", b"content-length", b"etag", b"if-modified-since", b"if-none-match", b"location", b"set-cookie")
)
_SECRET: Final = frozenset((b"authorization",))


class PeerEncoder:
    """HPACK as peers do it (RFC 7541), by ``style``:

    ``indexing`` indexes everything, ``nghttp2`` what may come again, ``nginx`` writes a literal to be indexed every time,
    ``sidecar`` what does not vary by its nature, ``nothing`` uses no table at all and no Huffman coding.
    """

    STYLES: Final = ("indexing", "nghttp2", "nginx", "sidecar", "nothing")

    def __init__(self, style: str) -> None:
        self.style = style
        self.entries: deque[Field] = deque()
        self.size = 0
        self.max_size = 4096
        self.updates: list[int] = []

    def resize(self, size: int) -> None:
        """Use a table of this size from the next block on."""
        self.max_size = size
        self.updates.append(size)
        self._evict()

    def block(self, fields: Iterable[Field]) -> bytes:
        """The fields as a header block."""
        start = b"".join(integer(0x20, 31, size) for size in self._told())
        return start + b"".join(self._field(name, value) for name, value in fields)

    def _told(self) -> list[int]:
        told = sorted({min(self.updates), self.updates[-1]}) if self.updates else []
        self.updates.clear()
        return told

    def _field(self, name: bytes, value: bytes) -> bytes:
        style = self.style
        if style == "nothing":
            return b"\x00" + self._plain(name) + self._plain(value)
        static = STATIC_INDEX.get((name, value))
        if static is not None:
            return integer(0x80, 127, static)
        if style != "nginx" and (name, value) in self.entries:
            return integer(0x80, 127, FIRST_DYNAMIC + self.entries.index((name, value)))
        if (style == "nghttp2" and name in _PASSING | _SECRET) or (style == "sidecar" and name in VOLATILE):
            return self._literal(0x10 if name in _SECRET else 0, 15, name, value)
        coded = self._literal(0x40, 63, name, value)
        self.entries.appendleft((name, value))
        self.size += len(name) + len(value) + OVERHEAD
        self._evict()
        return coded

    def _literal(self, prefix: int, mask: int, name: bytes, value: bytes) -> bytes:
        index = STATIC_NAME.get(name)
        head = integer(prefix, mask, index) if index else bytes((prefix,)) + self._short(name)
        return head + self._short(value)

    def _plain(self, text: bytes) -> bytes:
        return integer(0, 127, len(text)) + text

    def _short(self, text: bytes) -> bytes:
        coded = huffman_encode(text)
        return integer(0x80, 127, len(coded)) + coded if len(coded) < len(text) else self._plain(text)

    def _evict(self) -> None:
        while self.size > self.max_size:
            name, value = self.entries.pop()
            self.size -= len(name) + len(value) + OVERHEAD


class PeerStream:
    """One stream as the peer sees it."""

    def __init__(self, number: int, window: int) -> None:
        self.id = number
        self.window = window  # octets that we may still send, without those of the initial window's changes
        self.sent_head = self.sent_end = self.got_head = self.got_end = self.dead = False
        self.method = b""
        self.fields: list[Field] = []

    @property
    def may_send(self) -> bool:
        return not self.sent_end and not self.dead


class Http2Peer:
    """``deliver`` takes what we send, in reads; ``server`` says which end we are."""

    def __init__(self, deliver: Callable[[bytes], object], server: bool, style: str, settings: dict[int, int]) -> None:
        self.deliver = deliver
        self.server = server
        self.encoder = PeerEncoder(style)
        self.decoder = Decoder(max_header_list_size=1 << 20)
        self.streams: dict[int, PeerStream] = {}
        self.next_id = 1
        self.window = 65535  # of the connection, for what we send
        self.initial_window = 65535
        self.received: dict[int, int] = {}  # octets by stream that the sidecar has not been given back
        self.unread = b""
        self.block: tuple[int, bool, bytes] | None = None
        self.most_streams = 1 << 31
        self.gone = False  # GOAWAY has come
        self.table_sizes: deque[int] = deque()
        self.out = bytearray() if server else bytearray(wire.PREFACE)
        self.out += wire.settings(settings.items())
        self._note_own(settings)

    # what we send

    def flush(self) -> None:
        """Let what has been said leave, in one read."""
        out, self.out = bytes(self.out), bytearray()
        if out:
            self.deliver(out)

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.out += wire.write_header(len(payload) << 8 | kind, flags, stream_id) + payload

    def open(self, fields: list[Field], end: bool) -> PeerStream | None:
        """A request; None where the sidecar takes no more."""
        active = sum(not (one.dead or (one.sent_end and one.got_end)) for one in self.streams.values())
        if self.gone or active >= self.most_streams:
            return None
        stream = self.streams[self.next_id] = PeerStream(self.next_id, self.initial_window)
        self.next_id += 2
        stream.method = dict(fields)[b":method"]
        self.head(stream, fields, end)
        return stream

    def head(self, stream: PeerStream, fields: list[Field], end: bool) -> None:
        """A header section: of a request, a response, or trailers."""
        if not stream.may_send:
            return
        block = self.encoder.block(fields)
        flags = wire.END_STREAM if end else 0
        if len(block) <= _FRAME:
            self.frame(wire.HEADERS, flags | wire.END_HEADERS, stream.id, block)
        else:
            self.frame(wire.HEADERS, flags, stream.id, block[:_FRAME])
            rest = [block[at : at + _FRAME] for at in range(_FRAME, len(block), _FRAME)]
            for number, piece in enumerate(rest, 1):
                self.frame(wire.CONTINUATION, wire.END_HEADERS if number == len(rest) else 0, stream.id, piece)
        stream.sent_head = True
        stream.sent_end = end

    def data(self, stream: PeerStream, data: bytes, end: bool, size: int = _FRAME, padding: int = 0) -> bool:
        """A body or a piece of it, in frames of ``size``; False if the windows do not admit all of it."""
        pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        for number, piece in enumerate(pieces, 1):
            cost = len(piece) + (padding + 1 if padding else 0)
            if not stream.may_send or cost > min(self.window, stream.window):
                return False
            last = end and number == len(pieces)
            flags = (wire.END_STREAM if last else 0) | (wire.PADDED if padding else 0)
            self.window -= cost
            stream.window -= cost
            payload = bytes((padding,)) + piece + bytes(padding) if padding else piece
            self.frame(wire.DATA, flags, stream.id, payload)
            stream.sent_end = last
        return True

    def reset(self, stream: PeerStream, code: int) -> None:
        if not stream.dead and not (stream.sent_end and stream.got_end):
            stream.dead = True
            self.out += wire.rst_stream(stream.id, code)

    def settings(self, values: dict[int, int]) -> None:
        self.out += wire.settings(values.items())
        self._note_own(values)

    def ping(self) -> None:
        self.out += wire.ping(b"peer....")

    def go_away(self, last: int, code: int = wire.NO_ERROR) -> None:
        self.out += wire.goaway(last, code)
        for stream in self.streams.values():
            stream.dead = stream.dead or stream.id > last

    def give_back(self, stream_id: int) -> None:
        """Open a window by as much as has come (stream 0: the connection's)."""
        size = self.received.get(stream_id, 0)
        stream = self.streams.get(stream_id)
        if size and (not stream_id or (stream is not None and not stream.dead)):
            self.received[stream_id] = 0
            self.out += wire.window_update(stream_id, size)

    # what came

    def receive(self, data: bytes) -> list[tuple[Any, ...]]:
        """What it means, in order; data of a stream that came in a row is one. Settings and pings are acknowledged."""
        self.unread += data
        found: list[tuple[Any, ...]] = []
        for kind, flags, stream_id, payload in self._frames():
            meant = self._meaning(kind, flags, stream_id, payload)
            if meant is None:
                continue
            before = found[-1] if found else ()
            if meant[0] == "data" and before[:2] == meant[:2]:
                meant = ("data", stream_id, before[2] + meant[2], meant[3])
                found.pop()
            found.append(meant)
        return found

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        if self.server and self.unread.startswith(wire.PREFACE[:1]):
            assert self.unread.startswith(wire.PREFACE)
            self.unread = self.unread[len(wire.PREFACE) :]
        data, at = self.unread, 0
        while len(data) - at >= wire.HEADER_SIZE:
            word, flags, stream_id = wire.read_header(data, at)
            end = at + wire.HEADER_SIZE + (word >> 8)
            assert word >> 8 <= _FRAME
            if end > len(data):
                break
            yield word & 0xFF, flags, stream_id, data[at + wire.HEADER_SIZE : end]
            at = end
        self.unread = data[at:]

    def _meaning(self, kind: int, flags: int, stream_id: int, payload: bytes) -> tuple[Any, ...] | None:
        if self.block is not None:
            assert kind == wire.CONTINUATION
            assert self.block[0] == stream_id
            _, end, begun = self.block
            self.block = None
            return self._block(stream_id, flags, end, begun + payload)
        if kind == wire.HEADERS:
            return self._block(stream_id, flags, bool(flags & wire.END_STREAM), payload)
        if kind == wire.DATA:
            stream = self.streams[stream_id]
            assert stream.got_head
            assert not stream.got_end
            stream.got_end = bool(flags & wire.END_STREAM)
            for window in (0, stream_id):
                self.received[window] = self.received.get(window, 0) + len(payload)
            return "data", stream_id, payload, stream.got_end
        if kind == wire.RST_STREAM:
            stream = self.streams[stream_id]
            stream.dead = True
            return "reset", stream_id, *unpack(">I", payload)
        if kind == wire.SETTINGS:
            return self._their_settings(flags, payload)
        if kind == wire.PING:
            if not flags:
                self.out += wire.ping(payload, wire.ACK)
            return "ping", flags, payload
        if kind == wire.GOAWAY:
            self.gone = True
            return "goaway", *wire.read_pair(payload, 0)
        assert kind == wire.WINDOW_UPDATE
        (size,) = unpack(">I", payload)
        if stream_id:
            self.streams[stream_id].window += size
        else:
            self.window += size
        return "window", stream_id, size

    def _block(self, stream_id: int, flags: int, end: bool, block: bytes) -> tuple[Any, ...] | None:
        if not flags & wire.END_HEADERS:
            self.block = stream_id, end, block
            return None
        fields = self.decoder.decode(block, raw=True)
        stream = self.streams.get(stream_id)
        if stream is None:
            assert self.server
            stream = self.streams[stream_id] = PeerStream(stream_id, self.initial_window)
            stream.fields = [(bytes(name), bytes(value)) for name, value in fields]
            stream.method = dict(stream.fields)[b":method"]
        assert not stream.got_end
        stream.got_head = True
        stream.got_end = end
        pseudo = sorted(self._field(field) for field in fields if field[0][:1] == b":")  # in no particular order
        return "head", stream_id, [*pseudo, *(self._field(field) for field in fields if field[0][:1] != b":")], end

    def _field(self, field: Any) -> tuple[Any, ...]:
        never = ("never indexed",) if isinstance(field, NeverIndexedHeaderTuple) else ()
        return bytes(field[0]), bytes(field[1]), *never

    def _their_settings(self, flags: int, payload: bytes) -> tuple[Any, ...]:
        if flags & wire.ACK:
            if self.table_sizes:
                self.decoder.max_allowed_table_size = self.table_sizes.popleft()
            return ("acknowledged",)
        values = dict(wire.read_setting(payload, at) for at in range(0, len(payload), 6))
        if wire.INITIAL_WINDOW_SIZE in values:
            change = values[wire.INITIAL_WINDOW_SIZE] - self.initial_window
            self.initial_window += change
            for stream in self.streams.values():
                stream.window += change
        self.most_streams = values.get(wire.MAX_CONCURRENT_STREAMS, self.most_streams)
        self.out += wire.SETTINGS_ACK
        return "settings", values

    def _note_own(self, values: dict[int, int]) -> None:
        size = values.get(wire.HEADER_TABLE_SIZE, self.decoder.max_allowed_table_size)
        self.table_sizes.append(size)
        if size > self.decoder.max_allowed_table_size:
            self.decoder.max_allowed_table_size = size
