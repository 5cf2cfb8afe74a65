"""The server's end of an HTTP/2 connection: what the sidecar is to its clients."""

from __future__ import annotations

from typing import Any, Final

from sidecar.codec.hpack_decoder import CHANGED, STEADY, HpackDecoder, ListTooLarge
from sidecar.codec.hpack_shifting import Shifting
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2 import LONGEST_DATA, Http2Connection, with_code_of_its_own
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import (
    ENABLE_CONNECT_PROTOCOL,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADER_SIZE,
    HEADERS,
    INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    read_header,
    write_header,
)
from sidecar.codec.http2_head import NO_LENGTH, VIOLATION, Known, Malformed, request_head, response_block
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_output import BULKY, Sink, Stream, new_stream
from sidecar.codec.http2_states import AWAIT_PREFACE, HALF_CLOSED_REMOTE, OPEN, SEND_HEADERS, STREAM
from sidecar.codec.wire import Field
from sidecar.core.head import RequestHead, ResponseHead

_MOST_GAPS: Final = 16
_NO_VALUES: Final[list[bytes]] = []


@with_code_of_its_own
class ServerConnection(Http2Connection):
    """Takes requests. The settings that a server begins with are among ``out`` from the start."""

    __slots__ = ("fields", "gaps", "highest", "layouts", "most_streams", "skipped", "spare")

    sink: Sink[RequestHead] | None

    def __init__(self, options: Http2Options, texts: Texts) -> None:
        super().__init__(options, AWAIT_PREFACE)
        self.layouts: dict[Any, Any] | None = None  # the owner's, of header lists that it knows
        self.fields: list[Field] | None = None  # those of the head that is being delivered, if they were decoded
        self.spare: Stream | None = None  # one that has ended, and is as it was when it began
        self.highest = -1  # the last stream that the client has opened
        self.skipped = 0  # how many below it that it has not
        self.most_streams = options.max_concurrent_streams
        self.gaps: list[tuple[int, int]] = []  # streams that it has skipped, so that it may not use them any more
        self.decoder = HpackDecoder(texts, options.max_header_bytes, options.max_fields)
        pairs = [(ENABLE_CONNECT_PROTOCOL, 1)] if options.allow_connect else []
        self._start([*pairs, (MAX_CONCURRENT_STREAMS, options.max_concurrent_streams)], b"")

    @property
    def opened_streams(self) -> int:
        return (self.highest + 1 >> 1) - self.skipped

    def send_head(self, stream_id: int, head: ResponseHead, end: bool) -> None:
        """Send a response's head, or an informational one (with ``end`` false). Nothing, for a stream that was reset."""
        stream = self.streams.get(stream_id)
        if stream is None or STREAM[stream.state][SEND_HEADERS] < 0:
            return
        self._send_block(stream_id, response_block(self.encoder, head), END_STREAM if end else 0)
        if end:
            self._sent_end(stream)

    def send_block(self, stream_id: int, block: bytes) -> bool:
        """As ``send_head`` without ``end``, for a block that has been made already; False if the stream was reset."""
        stream = self.streams.get(stream_id)
        if stream is None or STREAM[stream.state][SEND_HEADERS] < 0:
            return False
        self.out.append(write_header(len(block) << 8 | HEADERS, END_HEADERS, stream_id))
        self.out.append(block)
        return True

    def send_message(self, stream_id: int, block: bytes, data: bytes, trailers: list[Field] | None) -> bool:
        """Send a whole response to a request that has ended: its head as for ``send_block``, data, and the end.

        False, and nothing is sent, if it would have to wait, or the stream was reset.
        """
        stream = self.streams.get(stream_id)
        size = len(data)
        if (
            stream is None
            or stream.state != HALF_CLOSED_REMOTE
            or stream.queue is not None
            or size > self.window_out
            or size > self.initial_out + stream.credit_out
            or self.paused
        ):
            return False
        self.window_out -= size
        self.data_frames_sent += 1
        if size >= BULKY:
            self.bulky = True
        head = write_header(len(block) << 8 | HEADERS, END_HEADERS, stream_id)
        if trailers is None:
            self.out += (head, block, write_header(size << 8, END_STREAM, stream_id), data)
        else:
            self.out += (head, block, write_header(size << 8, 0, stream_id), data)
            self._send_block(stream_id, self.encoder.encode(trailers), END_STREAM)
        del self.streams[stream_id]
        if stream.pipe is None and not (stream.credit_out or stream.credit_in or stream.unreturned):
            self.spare = stream
        if self.resets:
            self.resets = max(0.0, self.resets - 1)
        return True

    def _block(self, stream_id: int, block: bytes, end: bool) -> None:
        if stream_id == self.highest + 2 and stream_id <= self.last_accepted and len(self.streams) < self.most_streams:
            shifting = self.decoder.shifting
            if shifting is not None and shifting.end is end:
                found = shifting.match(block, self.decoder)
                if found is not None:
                    self._shifted(stream_id, shifting, found, len(block), end)
                    return
            recalled = self._recall(block)
            if recalled is not None:
                known, values = recalled
                if known.shape is not None and (known.bodiless or (not end and known.length_at < 0)):
                    self.highest = stream_id
                    self.received_head_size = len(block) + HEADER_SIZE
                    self._open_plain(stream_id, end, known.length)
                    if self.sink.on_known(stream_id, known, values, end) is not None:  # type: ignore[union-attr]
                        return
                    self.known = known
                    self.fields = None
                    self.sink.on_head(stream_id, known.filled(values), end)  # type: ignore[union-attr]
                    return
            self._begin(stream_id, block, end, recalled)
            return
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, block, end)
        elif stream_id <= self.highest or not stream_id & 1 or stream_id > self.last_accepted:
            self._discard(stream_id, block)
        else:
            if stream_id > self.highest + 2:
                self._skip(self.highest + 1, stream_id - 1)
            self._begin(stream_id, block, end, self._recall(block))

    def _open_plain(self, stream_id: int, end: bool, expected: int) -> None:
        """Open a stream with its head; one that has ended serves again, if there is such."""
        stream = self.spare
        if stream is not None:
            self.spare = None
            stream.id = stream_id
            stream.state = HALF_CLOSED_REMOTE if end else OPEN
        else:
            stream = new_stream(stream_id, HALF_CLOSED_REMOTE if end else OPEN)
            stream.headed = True
        stream.expected = expected
        self.streams[stream_id] = stream

    def _shifted(self, stream_id: int, shifting: Shifting, found: list[bytes], size: int, end: bool) -> None:
        """A request whose block, of ``size`` octets, is of a kind that the table has made room for in a layout."""
        binding = shifting.kept
        path = binding.path
        if path is None:
            path = found[0]
        if path[:1] != b"/" or not shifting.accepts(path):
            self._begin(stream_id, b"", end, None, shifting.filled(found), size)
            return
        self.highest = stream_id
        self.received_head_size = size + HEADER_SIZE
        self._open_plain(stream_id, end, NO_LENGTH)
        self.sink.on_laid_out(binding.shape, stream_id, path, binding.values(found), end)  # type: ignore[union-attr]

    def _begin(
        self,
        stream_id: int,
        block: bytes,
        end: bool,
        recalled: tuple[Known, list[bytes]] | None,
        decoded: list[Field] | None = None,
        size: int = 0,
    ) -> None:
        """A request on a new stream; ``recalled`` is what ``_recall`` has found out about its block.

        ``decoded`` are the fields of a block of ``size`` octets that has had its effect on the table already.
        """
        self.highest = stream_id
        self.received_head_size = (size or len(block)) + HEADER_SIZE
        known, values, head, layout = None, _NO_VALUES, None, None
        self.fields = None
        wanted = False
        try:
            if recalled is None:
                inserted, count = self.decoder.inserted, len(self.decoder.entries)
                fields, effect = self._decode(block) if decoded is None else (decoded, CHANGED)
                if self.layouts:
                    layout = self.layouts.get((end, *[name for name, _ in fields]))
                    if layout is not None and self._fits(layout, fields):
                        wanted = decoded is None and self.decoder.wants(block)
                        if effect != STEADY or not wanted:
                            if wanted:
                                shifting = self.decoder.keep_shifting(block, fields, inserted, count)
                                if shifting is not None:
                                    self._bind(shifting, layout, end)
                            self._laid_out(stream_id, layout, fields, end)
                            return
                self.fields = fields
                head, length = request_head(fields, self.decoder.suspicious, self.options.allow_connect)
                if effect >= STEADY:
                    known = self._learn(block, effect, head, length, wanted)
            else:
                known, values = recalled
                length = known.length if known.length_at < 0 else int(values[known.length_at])
            if end and length > 0:
                raise Malformed(VIOLATION)
        except Malformed as error:
            self._malformed(stream_id, error.details, True)
            return
        except ListTooLarge as error:
            self._stream_error(stream_id, INTERNAL_ERROR, error.details, True)
            return
        except Http2Error as error:  # of compression
            self.sink.on_refused(stream_id, NO_ERROR, error.details)  # type: ignore[union-attr]
            raise
        if len(self.streams) >= self.most_streams:
            self._stream_error(stream_id, REFUSED_STREAM, "http2.max_concurrent_streams", True)
            return
        self.streams[stream_id] = stream = new_stream(stream_id, HALF_CLOSED_REMOTE if end else OPEN)
        stream.headed = True
        stream.expected = length
        self.known = known
        if head is None:
            assert known is not None
            if known.shape is not None and self.sink.on_known(stream_id, known, values, end) is not None:  # type: ignore[union-attr]
                return
            head = known.filled(values)
        self.sink.on_head(stream_id, head, end)  # type: ignore[union-attr]

    def _message(self, data: bytes, at: int, end: int, stream_id: int) -> int:
        word, flags, number = read_header(data, end)
        body = end + HEADER_SIZE
        after: int = body + (word >> 8)
        if (
            number != stream_id
            or flags != END_STREAM
            or not 0 < word <= LONGEST_DATA
            or word & 0xFF
            or after > len(data)
            or stream_id != self.highest + 2
            or stream_id > self.last_accepted
            or len(self.streams) >= self.most_streams
            or after - body > self.window_in
        ):
            return 0
        decoder = self.decoder
        block = data[at:end]
        known = decoder.known.get(block)
        if known is None:
            for pattern in decoder.patterns:
                values = pattern.match(block, decoder.texts)
                if values is not None:
                    known = pattern.kept
                    if not known.admits(values):
                        return 0
                    break
            else:
                return 0
        else:
            values = known.values
        length = known.length if known.length_at < 0 else int(values[known.length_at])
        if known.shape is None or (length >= 0 and length != after - body):
            return 0
        decoder.misses = 0
        self.highest = stream_id
        self.received_head_size = end - at + HEADER_SIZE
        self.streams[stream_id] = stream = new_stream(stream_id, OPEN)
        stream.headed = True
        stream.expected = length
        taken = self.sink.on_known(stream_id, known, values, False, data[body:after])  # type: ignore[union-attr]
        if not taken:
            if taken is None:
                del self.streams[stream_id]
                self.highest -= 2
                return 0
            return end
        stream.state = HALF_CLOSED_REMOTE
        if length > 0:
            stream.expected = 0
        length = after - body
        stream.credit_in = -length
        self.empty_frames = 0
        self.window_in -= length
        self.unreturned += length
        if self.unreturned >= self.return_at:
            self._return(0)
        return after

    def _fits(self, layout: Any, fields: list[Field]) -> bool:
        """Whether a header list has the constants of a layout, and nothing that has to be looked at more closely."""
        path = fields[layout.path_at][1]
        return (
            layout.constants_of(fields) == layout.constants
            and path[:1] == b"/"
            and layout.accepts(path)
            and not self.decoder.suspicious
            and layout.length_at < 0
            and len(self.streams) < self.most_streams
        )

    def _bind(self, shifting: Shifting, layout: Any, end: bool) -> None:
        """Let blocks of a kind be taken as the layout says that was found in one; forget the kind if it does not fit."""
        shifting.end = end
        shifting.accepts = layout.accepts
        shifting.kept = layout.binding(shifting.fields, shifting.holes)
        if shifting.kept is None:
            self.decoder.shifting = None

    def _laid_out(self, stream_id: int, layout: Any, fields: list[Field], end: bool) -> None:
        """A request of a shape that the owner knows: no head is made of its fields."""
        self.streams[stream_id] = stream = new_stream(stream_id, HALF_CLOSED_REMOTE if end else OPEN)
        stream.headed = True
        values = [fields[at][1] for at in layout.values_at]
        self.sink.on_laid_out(layout.shape, stream_id, fields[layout.path_at][1], values, end)  # type: ignore[union-attr]

    def _skip(self, first: int, last: int) -> None:
        self.skipped += last - first + 1 >> 1
        if len(self.gaps) >= _MOST_GAPS:
            del self.gaps[0]
        self.gaps.append((first, last))

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self.highest or not stream_id & 1

    def _discard(self, stream_id: int, block: bytes) -> None:
        for first, last in self.gaps:
            if first <= stream_id <= last:
                raise self.fail(PROTOCOL_ERROR, "http2.stream_order")
        super()._discard(stream_id, block)

    def _cut_off(self, stream_id: int) -> None:
        if stream_id > self.highest:
            self.sink.on_refused(stream_id, NO_ERROR, "http2.unexpected_frame")  # type: ignore[union-attr]

    def _last_seen(self) -> int:
        return max(self.highest, 0)

    def _closed(self, stream: Stream) -> None:
        del self.streams[stream.id]
        if self.resets:
            self.resets = max(0.0, self.resets - 1)

    def _check_resets(self) -> None:
        self.resets += 1
        if self.resets > self.options.max_resets:
            raise self.fail(ENHANCE_YOUR_CALM, "http2.too_many_resets")
