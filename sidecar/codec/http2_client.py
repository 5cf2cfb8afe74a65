"""The client's end of an HTTP/2 connection: what the sidecar is to an upstream host."""

from __future__ import annotations

from typing import Final

from sidecar.codec.hpack_decoder import STEADY, HpackDecoder, ListTooLarge
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2 import LONGEST_DATA, Http2Connection, with_code_of_its_own
from sidecar.codec.http2_frames import (
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    HEADER_SIZE,
    HEADERS,
    INTERNAL_ERROR,
    LARGEST_STREAM_ID,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    read_header,
    write_header,
)
from sidecar.codec.http2_head import (
    NO_LENGTH,
    VIOLATION,
    Malformed,
    request_block,
    response_head,
)
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_output import BULKY, Sink, Stream, new_stream
from sidecar.codec.http2_states import (
    AWAIT_SETTINGS,
    CLOSED,
    DEAD,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    OPEN,
    RECV_END_STREAM,
    RESET_BY_PEER,
    STREAM,
)
from sidecar.core.head import RequestHead, ResponseHead

_NO_VALUES: Final[list[bytes]] = []


@with_code_of_its_own
class ClientConnection(Http2Connection):
    """Sends requests. The preface and the settings of a client are among ``out`` from the start."""

    __slots__ = ("next_id", "spare")

    sink: Sink[ResponseHead] | None

    def __init__(self, options: Http2Options, texts: Texts) -> None:
        super().__init__(options, AWAIT_SETTINGS)
        self.next_id = 1
        self.spare: list[Stream] = []  # those that have ended, and are as they were: no more than were open at a time
        self.peer_max_streams = options.max_concurrent_streams
        self.decoder = HpackDecoder(texts, options.max_header_bytes, options.max_fields)
        self._start([(ENABLE_PUSH, 0)], PREFACE)

    @property
    def opened_streams(self) -> int:
        return self.next_id >> 1

    def available(self) -> int:
        """How many more streams may be opened now; none any more once either side drains."""
        if self.goaway_received or self.draining or self.state == DEAD or self.next_id > LARGEST_STREAM_ID:
            return 0
        return max(0, self.peer_max_streams - len(self.streams))

    def open(self, head: RequestHead, end: bool) -> int:
        """Send a request's head on a new stream; the stream's number. Ask ``available`` before.

        A head with Upgrade becomes an extended CONNECT, whether the peer has said yet that it takes those or not.
        """
        stream_id = self.next_id
        self.next_id = stream_id + 2
        self.streams[stream_id] = stream = new_stream(stream_id, HALF_CLOSED_LOCAL if end else OPEN)
        method = head.method
        upgraded = False
        if method != b"GET" or b"upgrade" in head.index:
            if method == b"CONNECT":
                stream.mark(False, method)
            elif b"upgrade" in head.index:
                stream.mark(method == b"HEAD", head.index[b"upgrade"])
                upgraded = True
            elif method == b"HEAD":
                stream.mark(True, b"")
        self._send_block(stream_id, request_block(self.encoder, head, upgraded), END_STREAM if end else 0)
        return stream_id

    def open_block(self, block: bytes, end: bool) -> int:
        """As ``open``, for a plain request whose header block has been made already, and fits into one frame."""
        stream_id = self.next_id
        self.next_id = stream_id + 2
        flags = END_HEADERS | END_STREAM if end else END_HEADERS
        spare = self.spare
        if spare:
            self.streams[stream_id] = stream = spare.pop()
            stream.id = stream_id
            stream.state = HALF_CLOSED_LOCAL if end else OPEN
        else:
            self.streams[stream_id] = new_stream(stream_id, HALF_CLOSED_LOCAL if end else OPEN)
        self.out += (write_header(len(block) << 8 | HEADERS, flags, stream_id), block)
        return stream_id

    def _message(self, data: bytes, at: int, end: int, stream_id: int) -> int:
        size = len(data)
        word, flags, number = read_header(data, end)
        body = end + HEADER_SIZE
        after = body + (word >> 8)
        stream = self.streams.get(stream_id)
        if (
            number != stream_id
            or after > size
            or stream is None
            or stream.state != HALF_CLOSED_LOCAL
            or stream.headed
            or stream.odd
        ):
            return 0
        decoder = self.decoder
        block = data[at:end]
        inserting = None
        known = decoder.known.get(block)
        if known is not None:
            values = known.values
        else:
            inserting = decoder.inserting.get(block)
            if inserting is not None:
                known = inserting.made
                values = known.values
            else:
                for pattern in decoder.patterns:
                    found = pattern.match(block, decoder.texts)
                    if found is not None:
                        known, values = pattern.kept, found
                        break
                else:
                    return 0
                if not known.admits(values):
                    return 0
        length = after - body
        if known.shape is None or length > self.window_in:
            return 0
        if word != known.data:
            expected = known.length if known.length_at < 0 else int(values[known.length_at])
            if not 0 < word <= LONGEST_DATA or word & 0xFF or (expected >= 0 and expected != length):
                return 0
        trailers = None
        if flags != END_STREAM:
            if flags or size - after < HEADER_SIZE:
                return 0
            word, flags, number = read_header(data, after)
            section = after + HEADER_SIZE
            last: int = section + (word >> 8)
            if word & 0xFF != HEADERS or flags != END_HEADERS | END_STREAM or number != stream_id or last > size:
                return 0
            trailers = decoder.sections.get(data[section:last])
            if trailers is None or inserting is not None:
                return 0
            trailers = trailers.copy()
        else:
            last = after
        del self.streams[stream_id]
        self.received_head_size = end - at + HEADER_SIZE
        if not self.sink.on_known(stream_id, known, values, False, data[body:after], trailers):  # type: ignore[union-attr]
            self.streams[stream_id] = stream
            return 0
        if inserting is not None and inserting is not decoder.settled:
            decoder.insert(inserting)
        if not stream.credit_out:  # nothing else of it has changed since it began
            self.spare.append(stream)
        decoder.misses = 0
        self.empty_frames = 0
        self.window_in -= length
        self.unreturned += length
        if self.unreturned >= self.return_at:
            self._return(0)
        return last

    def admits(self, size: int) -> bool:
        """Whether a new stream may begin with so many octets of data, and none of them would have to wait."""
        return size <= self.window_out and size <= self.initial_out and not self.paused

    def open_message(self, block: bytes, data: bytes) -> int:
        """As ``open_block`` for a request whose body is ``data``: so much must be admitted."""
        size = len(data)
        stream_id = self.next_id
        self.next_id = stream_id + 2
        spare = self.spare
        if spare:
            self.streams[stream_id] = stream = spare.pop()
            stream.id = stream_id
            stream.state = HALF_CLOSED_LOCAL
        else:
            self.streams[stream_id] = stream = new_stream(stream_id, HALF_CLOSED_LOCAL)
        stream.credit_out = -size
        self.window_out -= size
        self.data_frames_sent += 1
        if size >= BULKY:
            self.bulky = True
        head = write_header(len(block) << 8 | HEADERS, END_HEADERS, stream_id)
        self.out += (head, block, write_header(size << 8, END_STREAM, stream_id), data)
        return stream_id

    def _block(self, stream_id: int, block: bytes, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._discard(stream_id, block)
            return
        if stream.headed or stream.state >= HALF_CLOSED_REMOTE:
            self._trailers(stream, block, end)
            return
        self.received_head_size = len(block) + HEADER_SIZE
        known, values, head = None, _NO_VALUES, None
        recalled = self._recall(block)
        try:
            if recalled is None:
                fields, effect = self._decode(block)
                head, length = response_head(fields, self.decoder.suspicious)
                if effect >= STEADY:
                    known = self._learn(block, effect, head, length)
            else:
                known, values = recalled
                length = known.length if known.length_at < 0 else int(values[known.length_at])
                if known.shape is None or stream.odd:
                    head = known.filled(values)
            if head is None:
                if end and length > 0:
                    raise Malformed(VIOLATION)
                stream.headed = True
                stream.expected = length
            elif head.status >= 200:
                stream.headed = True
                if stream.odd or head.status in (204, 304):
                    length = self._unusual(stream, head, length)
                elif end and length > 0:
                    raise Malformed(VIOLATION)
                stream.expected = length
            elif end:
                raise Malformed(VIOLATION)
        except Malformed as error:
            self._malformed(stream_id, error.details)
            return
        except ListTooLarge as error:
            self._stream_error(stream_id, INTERNAL_ERROR, error.details)
            return
        if end:
            stream.state = STREAM[stream.state][RECV_END_STREAM]
            if stream.state == CLOSED:
                self._closed(stream)
        self.known = known
        if head is None:
            if self.sink.on_known(stream_id, known, values, end) is not None:  # type: ignore[union-attr]
                return
            head = known.filled(values)  # type: ignore[union-attr]
        self.sink.on_head(stream_id, head, end)  # type: ignore[union-attr]

    def _unusual(self, stream: Stream, head: ResponseHead, length: int) -> int:
        """The octets that a response may have whose Content-Length does not say so (RFC 9110 section 6.4.1)."""
        if not stream.odd:
            return 0
        if stream.upgrade and head.status < 300:
            head.remove(b"content-length")
            if stream.upgrade != b"CONNECT" and head.status == 200:
                head.status = 101
                head.set(b"upgrade", stream.upgrade)
                head.set(b"connection", b"upgrade")
            return NO_LENGTH
        return 0 if stream.bodiless or head.status in (204, 304) else length

    def _setting(self, number: int, value: int) -> None:
        if number == ENABLE_PUSH and value:
            raise self.fail(PROTOCOL_ERROR, "http2.settings")  # a server may only forbid it to itself
        super()._setting(number, value)

    def _goaway_streams(self, last_stream_id: int) -> None:
        for stream_id in [stream_id for stream_id in self.streams if stream_id > last_stream_id]:
            stream = self.streams.get(stream_id)
            if stream is not None:
                self._forget(stream, RESET_BY_PEER)
                self.sink.on_reset(stream_id, REFUSED_STREAM, "http2.goaway")  # type: ignore[union-attr]

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id >= self.next_id or not stream_id & 1

    def _last_seen(self) -> int:
        return 0
