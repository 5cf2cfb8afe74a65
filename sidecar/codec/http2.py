"""HTTP/2 connections, sans I/O: bytes in, calls of a sink out, and frames to write (RFC 9113).

``receive`` takes what a read brought and works through its frames: a payload of DATA is cut out once and handed on, and
nothing is built for a frame. ``ServerConnection`` and ``ClientConnection`` say what a header block means. An error of
the connection is raised from ``receive``, with its GOAWAY already among ``out``; errors of a stream reset only that.
No clock is read: whoever owns the connection calls ``tick`` and ``ping``, and decides what was too late.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Final, TypeVar

from sidecar.codec.hpack_decoder import STEADY, ListTooLarge
from sidecar.codec.hpack_table import HpackError
from sidecar.codec.http2_control import Http2Control, Http2Error
from sidecar.codec.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER_SIZE,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    LARGEST_STREAM_ID,
    LEAST_MAX_FRAME_SIZE,
    PADDED,
    PREFACE,
    PRIORITIZED,
    PROTOCOL_ERROR,
    SETTINGS,
    read_header,
    settings,
    window_update,
)
from sidecar.codec.http2_head import VIOLATION, WRONG_LENGTH, Known, Malformed, check_trailers, copy_head
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_output import Stream
from sidecar.codec.http2_states import (
    AWAIT_PREFACE,
    AWAIT_SETTINGS,
    CLOSED,
    CONNECTION,
    DEAD,
    HALF_CLOSED_REMOTE,
    IN_BLOCK,
    READY,
    RECV_DATA,
    RECV_END_STREAM,
    RECV_HEADERS,
    STREAM,
)
from sidecar.codec.wire import Field
from sidecar.core.head import RequestHead, ResponseHead

_WHOLE_HEAD: Final = (END_HEADERS | END_STREAM, END_HEADERS)
LONGEST_DATA: Final = LEAST_MAX_FRAME_SIZE << 8
"""What a frame's first four octets are at most, for DATA."""
_LARGEST_HEAD: Final = LEAST_MAX_FRAME_SIZE << 8 | HEADERS
_HEADS_WEIGH: Final = 10  # a header block costs as much of a turn as so many frames
_LEAST_CONTINUATIONS: Final = 8


class Http2Connection(Http2Control):
    """What both roles receive. ``texts`` is shared by all connections of a worker."""

    __slots__ = (
        "backlog", "block", "block_end", "block_frames", "block_size", "block_stream", "empty_frames", "held",
        "interrupted", "known", "missing", "most_control_frames", "most_frames", "unsuspicious",
    )  # fmt: skip

    def __init__(self, options: Http2Options, first_state: int) -> None:
        super().__init__(options, first_state)
        self.held: list[bytes] | None = None  # a frame that has not arrived as a whole
        self.missing = 0  # octets until it can be looked at again
        self.backlog: list[bytes] | None = None  # what is left for another turn of the loop
        self.interrupted = False  # ``take_held`` has to be called in another turn
        self.block: list[bytes] = []  # a header block that has begun
        self.block_size = 0
        self.block_frames = 0
        self.block_stream = 0
        self.block_end = False
        self.empty_frames = 0
        self.known: Known | None = None  # what is remembered of the block whose head is being delivered
        self.most_frames = options.max_outbound_frames
        self.most_control_frames = options.max_outbound_control_frames
        self.unsuspicious = min(self.most_frames, self.most_control_frames)

    def receive(self, data: bytes) -> None:
        """Take what one read produced. Raises Http2Error, and takes nothing more after that.

        Where it leaves ``interrupted`` set, a read has brought very much: nothing more should be read before
        ``take_held`` has been called, in another turn of the loop.
        """
        size = len(data)
        if not self.state and self.held is None and not self.interrupted and size >= HEADER_SIZE:
            word, flags, stream_id = read_header(data)
            if word == (size - HEADER_SIZE) << 8 | HEADERS and flags in _WHOLE_HEAD and word <= _LARGEST_HEAD:
                # Nothing but the head of one message: what an idle connection reads most often.
                self._block(stream_id & LARGEST_STREAM_ID, data[HEADER_SIZE:], flags & END_STREAM != 0)
            else:
                self._frames(data, 0)
        elif self.state == DEAD:
            return
        elif self.interrupted:
            self.backlog.append(data)  # type: ignore[union-attr]
            return
        else:
            at = 0 if self.held is None else self._complete(data)
            if at < len(data):
                self._frames(data, at)
        if len(self.out) > self.unsuspicious:
            if self.control_frames > self.most_control_frames:
                raise self.fail(ENHANCE_YOUR_CALM, "http2.outbound_control_flood")
            if len(self.out) - self.pumped > self.most_frames:
                raise self.fail(ENHANCE_YOUR_CALM, "http2.outbound_flood")

    def _complete(self, data: bytes) -> int:
        """Take the frame that is held with what ``data`` has of it; where ``data`` goes on."""
        at = 0
        while self.held is not None:
            missing = self.missing
            rest = len(data) - at
            if rest < missing:
                self.held.append(data[at:])
                self.missing = missing - rest
                return len(data)
            frame = b"".join((*self.held, data[at : at + missing]))
            at += missing
            self.held = None
            self._frames(frame, 0)
        return at

    def take_held(self) -> None:
        """Go on with what was left for another turn."""
        backlog = self.backlog
        if backlog is not None:
            self.backlog = None
            self.interrupted = False
            self.receive(backlog[0] if len(backlog) == 1 else b"".join(backlog))

    def fail(self, code: int, details: str) -> Http2Error:
        """End the connection with GOAWAY and take nothing more; the error to raise."""
        self.held = self.backlog = None
        self.interrupted = False
        return super().fail(code, details)

    def _block(self, stream_id: int, block: bytes, end: bool) -> None:
        """A whole header block."""
        raise NotImplementedError

    def _message(self, data: bytes, at: int, end: int, stream_id: int) -> int:
        """The head in ``data[at:end]`` with all that belongs to it, if it is a message of a known shape that came whole.

        Where that ends, or the head does if no more was taken; 0 if nothing was done.
        """
        raise NotImplementedError

    def _recall(self, block: bytes) -> tuple[Known, list[bytes]] | None:
        """What is known of a block that has come before, or nearly so, and the values at its spots."""
        decoder = self.decoder
        known = decoder.known.get(block)
        if known is not None:
            decoder.misses = 0
            return known, known.values
        for pattern in decoder.patterns:
            values = pattern.match(block, decoder.texts)
            if values is not None:
                return (pattern.kept, values) if pattern.kept.admits(values) else None
        inserting = decoder.inserting.get(block)
        if inserting is not None:
            known = decoder.insert(inserting)
            decoder.misses = 0
            return known, known.values
        return None

    def _learn(
        self, block: bytes, effect: int, head: RequestHead | ResponseHead, length: int, wanted: bool = False
    ) -> Known | None:
        """Remember what a block means that was decoded with this effect on the table, if it may come again.

        ``wanted``: the decoder has been asked already whether it wants a block that left the table as it was.
        """
        decoder = self.decoder
        if effect == STEADY:
            if not wanted and not decoder.wants(block):
                return None
            pattern = decoder.pattern(block, head.fields)
            values = None if pattern is None else pattern.match(block, decoder.texts)
            if pattern is None or values is None:
                known = Known(copy_head(head), length, (), [])
            else:
                known = pattern.kept = Known(copy_head(head), length, pattern.spots, values)
                decoder.keep_pattern(pattern)
            decoder.keep(block, known)
            return known
        if effect > 0 and decoder.wants(block):
            known = Known(copy_head(head), length, (), [])
            decoder.keep_inserting(block, known, effect)
            return known
        return None

    def _start(self, pairs: list[tuple[int, int]], preface: bytes) -> None:
        """Send what a connection begins with (section 3.4), and open its window."""
        options = self.options
        if options.hpack_table_size != self.decoder.allowed:
            pairs.append((HEADER_TABLE_SIZE, options.hpack_table_size))
        pairs.append((INITIAL_WINDOW_SIZE, options.initial_stream_window_size))
        custom = dict(options.custom_settings_parameters)
        self.out.append(preface + settings({**dict(pairs), **custom}.items()))
        self.unacknowledged += 1
        if self.window_in > DEFAULT_WINDOW:
            self.out.append(window_update(0, self.window_in - DEFAULT_WINDOW))

    def _decode(self, block: bytes) -> tuple[list[Field], int]:
        try:
            return self.decoder.decode(block)
        except HpackError:
            raise self.fail(COMPRESSION_ERROR, "http2.codec_error") from None

    def _frames(self, data: bytes, at: int) -> None:
        size = len(data)
        if self.state == AWAIT_PREFACE:
            at = self._preface(data, at)
        turn = self.options.frames_per_turn
        streams = self.streams
        while size - at >= HEADER_SIZE:
            word, flags, stream_id = read_header(data, at)
            length = word >> 8
            if length > LEAST_MAX_FRAME_SIZE:
                raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
            end = at + HEADER_SIZE + length
            if end > size:
                self.held = [data[at:]]
                self.missing = end - size
                return
            if turn <= 0:
                self.interrupted = True
                self.backlog = [data[at:]]
                return
            if self.state:
                if self.state == DEAD:
                    return
                self._unready(word & 0xFF, flags, stream_id)
            at += HEADER_SIZE
            kind = word & 0xFF
            if kind == DATA:
                turn -= 1
                if not flags:
                    stream = streams.get(stream_id)
                    if (
                        stream is not None
                        and stream.pipe is not None
                        and stream.state < HALF_CLOSED_REMOTE
                        and length
                        and length <= self.window_in
                        and length <= self.initial_in + stream.credit_in
                        and stream.pipe(stream.owner, data[at:end])
                    ):  # nobody else looks at it
                        at = end
                        self.empty_frames = 0
                        self.window_in -= length
                        self.unreturned += length
                        if self.unreturned >= self.return_at:
                            self._return(0)
                        stream.credit_in -= length
                        stream.unreturned += length
                        if stream.unreturned >= self.stream_return_at:
                            self._return_to(stream)
                        continue
                self._data(data, at, end, flags, stream_id & LARGEST_STREAM_ID)
            elif kind == HEADERS:
                turn -= _HEADS_WEIGH + (length >> 6)
                stream_id &= LARGEST_STREAM_ID
                if flags == END_HEADERS | END_STREAM:
                    self._block(stream_id, data[at:end], True)
                elif flags == END_HEADERS:
                    after = self._message(data, at, end, stream_id) if size - end > HEADER_SIZE else 0
                    if after:
                        end = after
                    else:
                        self._block(stream_id, data[at:end], False)
                else:
                    self._headers(data, at, end, flags, stream_id)
            else:
                turn -= 1 + (length >> 6)
                if kind == SETTINGS:
                    turn -= len(streams) >> 3
                if kind < len(_HANDLERS):
                    _HANDLERS[kind](self, data, at, end, flags, stream_id & LARGEST_STREAM_ID)
            at = end
        if at < size:
            self.held = [data[at:]]
            self.missing = at + HEADER_SIZE - size

    def _preface(self, data: bytes, at: int) -> int:
        rest = data[at : at + len(PREFACE)]
        if not PREFACE.startswith(rest):
            raise self.fail(PROTOCOL_ERROR, "http2.bad_preface")
        if len(rest) < len(PREFACE):
            self.held = [rest]
            self.missing = len(PREFACE) - len(rest)
            return len(data)
        self.state = AWAIT_SETTINGS
        return at + len(PREFACE)

    def _unready(self, kind: int, flags: int, stream_id: int) -> None:
        """A frame where only some are allowed: before the first SETTINGS, or inside of a header block."""
        after = CONNECTION[self.state][min(kind, len(_HANDLERS))]
        wrong = stream_id != self.block_stream if self.state == IN_BLOCK else flags & ACK
        if after < 0 or wrong:
            if self.state == IN_BLOCK:
                self._cut_off(self.block_stream)
            raise self.fail(PROTOCOL_ERROR, "http2.unexpected_frame")
        self.state = after

    def _cut_off(self, stream_id: int) -> None:
        """A header block of this stream will not come to its end: the connection does."""

    def _data(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        length = end - at
        stream = self.streams.get(stream_id)
        if length:
            self.window_in -= length
            if self.window_in < 0:
                raise self.fail(FLOW_CONTROL_ERROR, "http2.connection_window")
            self.empty_frames = 0
        elif not flags & END_STREAM:
            self._empty_frame()
        if stream is None or stream.state >= HALF_CLOSED_REMOTE:
            self._return(length)
            self._stray(stream_id, RECV_DATA)
            return
        if flags & PADDED:
            end -= self._padding(data, at, end)
            at += 1
            self.consumed(stream_id, length - (end - at))
        size = end - at
        ended = flags & END_STREAM
        stream.credit_in -= length
        expected = stream.expected
        if expected >= 0:
            expected = stream.expected = expected - size
            if expected < 0 or (ended and expected):
                self._return(size)
                self._stream_error(stream_id, PROTOCOL_ERROR, WRONG_LENGTH)
                return
        if self.initial_in + stream.credit_in < 0 or not stream.headed:
            self._return(size)
            if stream.headed:
                self._stream_error(stream_id, FLOW_CONTROL_ERROR, "http2.stream_window")
            else:
                self._malformed(stream_id, VIOLATION)
            return
        if ended:
            stream.state = STREAM[stream.state][RECV_END_STREAM]
            if stream.state == CLOSED:
                self._closed(stream)
            self.sink.on_data(stream_id, data[at:end], True)  # type: ignore[union-attr]
        elif size:
            self.sink.on_data(stream_id, data[at:end], False)  # type: ignore[union-attr]

    def _empty_frame(self) -> None:
        self.empty_frames += 1
        if self.empty_frames > self.options.max_consecutive_inbound_frames_with_empty_payload:
            raise self.fail(ENHANCE_YOUR_CALM, "http2.inbound_empty_frames_flood")

    def _padding(self, data: bytes, at: int, end: int) -> int:
        """How many octets of padding a frame has (section 6.1)."""
        if at == end:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        padding = data[at]
        if padding >= end - at:
            raise self.fail(PROTOCOL_ERROR, "http2.padding")
        return padding

    def _headers(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        """HEADERS with padding or priority, or without the end of its block."""
        if flags & PADDED:
            end -= self._padding(data, at, end)
            at += 1
        if flags & PRIORITIZED:
            at += 5
            if at > end:
                raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        if flags & END_HEADERS:
            self._block(stream_id, data[at:end], bool(flags & END_STREAM))
            return
        if at == end and not flags & END_STREAM:
            self._empty_frame()
        self.state = IN_BLOCK
        self.block = [data[at:end]]
        self.block_size = end - at
        self.block_frames = 0
        self.block_stream = stream_id
        self.block_end = bool(flags & END_STREAM)

    def _continuation(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if self.state != IN_BLOCK:
            raise self.fail(PROTOCOL_ERROR, "http2.unexpected_frame")
        self.block_size += end - at
        self.block_frames += 1
        most = 2 * self.options.max_header_bytes  # up to there only the stream is reset, once the block is whole
        if self.block_size > most or self.block_frames > _LEAST_CONTINUATIONS + most // LEAST_MAX_FRAME_SIZE:
            raise self.fail(ENHANCE_YOUR_CALM, "http2.continuation_flood")
        if at == end and not flags & END_HEADERS:
            self._empty_frame()
        self.block.append(data[at:end])
        if flags & END_HEADERS:
            block = b"".join(self.block)
            self.block = []
            self.state = READY
            self._block(stream_id, block, self.block_end)

    def _trailers(self, stream: Stream, block: bytes, end: bool) -> None:
        """A header block behind the head: what it can be is trailers."""
        stream_id = stream.id
        self.received_head_size = len(block) + HEADER_SIZE
        decoder = self.decoder
        try:
            known = decoder.sections.get(block)
            if known is None:
                fields, effect = self._decode(block)
            else:
                fields, effect = known.copy(), STEADY
            if stream.state >= HALF_CLOSED_REMOTE:
                self._stray(stream_id, RECV_HEADERS)
                return
            if not end or stream.expected > 0:
                raise Malformed(VIOLATION)
            if known is None:
                if check_trailers(fields, decoder.suspicious):
                    fields = [field for field in fields if field[0] != b"content-length"]  # RFC 9110 section 6.5.1
                if effect == STEADY:
                    decoder.keep_section(block, fields.copy())
        except Malformed as error:
            self._malformed(stream_id, error.details)
            return
        except ListTooLarge as error:
            self._stream_error(stream_id, INTERNAL_ERROR, error.details)
            return
        stream.state = STREAM[stream.state][RECV_END_STREAM]
        if stream.state == CLOSED:
            self._closed(stream)
        self.sink.on_trailers(stream_id, fields)  # type: ignore[union-attr]

    def _discard(self, stream_id: int, block: bytes) -> None:
        """A header block that is not for any open stream: it still changes the table."""
        with suppress(ListTooLarge):
            self._decode(block)
        self._stray(stream_id, RECV_HEADERS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} state {self.state}, {len(self.streams)} streams>"


_Handler = Callable[[Http2Connection, bytes, int, int, int, int], None]
_HANDLERS: Final[tuple[_Handler, ...]] = (
    Http2Connection._data,
    Http2Connection._headers,
    Http2Connection._priority,
    Http2Connection._rst_stream,
    Http2Connection._settings,
    Http2Connection._refused_push,
    Http2Connection._ping,
    Http2Connection._goaway,
    Http2Connection._window_update,
    Http2Connection._continuation,
)

_HOT: Final = ("receive", "_frames", "_data", "_recall", "_trailers", "send_data", "send_piece", "consumed", "take")

Role = TypeVar("Role", bound=type[Http2Connection])


def with_code_of_its_own(role: Role) -> Role:
    """Give a role copies of the hottest methods that it shares with the other one.

    CPython adapts the bytecode of a function to the types that it meets (PEP 659), and goes back to what is slow where
    two take turns.
    """
    for name in _HOT:
        shared = getattr(role, name)
        setattr(role, name, FunctionType(shared.__code__.replace(), shared.__globals__, name, shared.__defaults__))
    return role
