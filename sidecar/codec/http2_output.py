"""The outbound half of an HTTP/2 connection: frames, windows and the queues of data that wait for them.

Frames go to ``out`` in the order in which they are to be written; the owner takes them once in a turn. Data beyond what
the peer's windows (or a paused transport) admit waits in a queue of its stream, which is ``full`` at a bound; streams
take turns, a frame each, when the connection's window opens (RFC 9113 section 5.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from sidecar.codec.hpack_encoder import HpackEncoder
from sidecar.codec.http2_frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADER_SIZE,
    HEADERS,
    LEAST_MAX_FRAME_SIZE,
    rst_stream,
    window_update,
    write_header,
)
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_states import (
    CLOSED,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    OPEN,
    RESET_BY_US,
    SEND_DATA,
    SEND_END_STREAM,
    SEND_HEADERS,
    STREAM,
)
from sidecar.codec.wire import Field
from sidecar.core.head import RequestHead, ResponseHead

H_contra = TypeVar("H_contra", RequestHead, ResponseHead, contravariant=True)

_REMEMBERED_RESETS: Final = 256
_LONGEST_CRUMB: Final = 4096
BULKY: Final = 4096
"""Octets of data that are not worth copying."""


class Sink(Protocol[H_contra]):
    """Where a connection delivers. ``end`` is true on the last call for a message; trailers are always last."""

    def on_head(self, stream_id: int, head: H_contra, end: bool) -> None:
        """A request (which begins its stream), a response, or an informational response (status below 200)."""
        ...

    def on_known(
        self,
        stream_id: int,
        known: Any,
        values: list[bytes],
        end: bool,
        body: bytes | None = None,
        trailers: list[Field] | None = None,
    ) -> bool | None:
        """Asked before ``on_head`` about a block of which the owner has made something before: its ``known.shape``.

        ``body`` is that of a message which came whole, and behind it ``trailers`` if there are any; a response's stream is
        closed already. None if the owner does not take the message: ``on_head`` follows. False if it has taken the head alone:
        data and trailers follow. True if it has taken all: nothing follows, and nothing is owed for the body.
        """
        ...

    def on_laid_out(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> None:
        """In the stead of ``on_head``: a request whose fields are where a layout of the owner's has them."""
        ...

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """The owner owes ``consumed(stream_id, len(data))`` for it, whatever becomes of the stream."""
        ...

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None: ...

    def on_reset(self, stream_id: int, code: int, details: str) -> None:
        """The stream is over: by the peer (``http2.remote_reset``), or for what the peer did wrong."""
        ...

    def on_refused(self, stream_id: int, code: int, details: str) -> None:
        """A request was answered with RST_STREAM before there was a head to deliver: for logs and statistics.

        ``code`` is NO_ERROR where the whole connection ends for it.
        """
        ...

    def on_window(self, stream_id: int) -> None:
        """The stream was full, and has room again. It comes from inside of whatever has made room: any call."""
        ...

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer takes no more streams; those of ours that it will not process have been reset before."""
        ...

    def on_settings(self) -> None:
        """The peer's settings have changed: how many streams it takes, for one."""
        ...

    def on_ping_ack(self, opaque: bytes) -> None: ...


class Stream:
    """A stream that is not closed. Windows are kept as what has been used of the initial ones, which may change.

    Most streams have no queue ever: what belongs to one is set with the first, by ``make_queue``, and not to be read before.
    """

    __slots__ = (
        "bodiless", "credit_in", "credit_out", "ending", "expected", "full", "headed", "id", "odd", "offset", "owner", "pipe",
        "queue", "queued", "state", "trailers", "unreturned", "upgrade", "waiting",
    )  # fmt: skip

    owner: Any

    id: int
    state: int
    credit_in: int  # to be added to the initial window: how much more the peer may send
    credit_out: int  # and how much more we may
    unreturned: int  # octets that were consumed and that the peer has not been told of
    expected: int  # octets of the body that are still to come, where Content-Length said so, and -1
    headed: bool  # the final head has been received
    pipe: Callable[[Any, bytes], bool] | None  # asked before ``on_data``, with ``owner``: whether it took the data
    odd: bool  # whether ``bodiless`` and ``upgrade`` are set
    queue: deque[bytes] | None

    def mark(self, bodiless: bool, upgrade: bytes) -> None:
        """The response has no body, whatever its Content-Length says; or it is one to an extended CONNECT that asked so."""
        self.odd = True
        self.bodiless = bodiless
        self.upgrade = upgrade

    def make_queue(self) -> deque[bytes]:
        """Begin to queue data."""
        queue: deque[bytes] = deque()
        self.queue = queue
        self.queued = 0
        self.offset = 0  # octets of the first piece that have left
        self.ending = False  # END_STREAM, or ``trailers``, follow the queue
        self.trailers: list[Field] | None = None
        self.full = False
        self.waiting = False  # for the connection's window
        return queue

    def __repr__(self) -> str:
        return f"<Stream {self.id} state {self.state}, {self.queued if self.queue is not None else 0} octets queued>"


_new = object.__new__


def new_stream(stream_id: int, state: int) -> Stream:
    """A stream without anything. CPython needs twice as long for a class with ``__init__``."""
    stream = _new(Stream)
    stream.id = stream_id
    stream.state = state
    stream.credit_in = stream.credit_out = stream.unreturned = 0
    stream.expected = -1
    stream.headed = stream.odd = False
    stream.pipe = stream.queue = None
    return stream


class Http2Output:
    """What both roles send, and the open streams. ``sink`` must be set before anything is received."""

    __slots__ = (
        "blocked", "bulky", "control_frames", "data_frames_sent", "encoder", "ended", "forgotten",
        "initial_in", "initial_out", "max_frame_out",
        "options", "out", "paused", "pumped", "received_head_size", "return_at",
        "sent_head_size", "sink", "stream_return_at", "streams", "unreturned", "waiting",
        "window_in", "window_out",
    )  # fmt: skip

    def __init__(self, options: Http2Options) -> None:
        self.options = options
        self.sink: Sink[Any] | None = None
        self.out: list[bytes] = []
        self.bulky = False  # whether some piece of it is long enough not to be copied
        self.control_frames = 0  # among ``out``
        self.pumped = 0  # pieces among ``out`` that come from queues: no more than what was bounded there
        self.data_frames_sent = 0
        self.sent_head_size = self.received_head_size = 0  # of the last head, in octets on the wire
        self.encoder = HpackEncoder(options.hpack_table_size)
        self.streams: dict[int, Stream] = {}
        self.ended: dict[int, int] = {}  # the latest streams that were reset, to their states
        self.forgotten = 0  # the highest that is no longer among those
        self.blocked: dict[Stream, None] = {}  # streams whose own windows do not admit what they have to send
        self.window_out = DEFAULT_WINDOW
        self.initial_out = DEFAULT_WINDOW
        self.max_frame_out = LEAST_MAX_FRAME_SIZE
        self.waiting: deque[Stream] = deque()
        self.paused = False
        self.window_in = options.initial_connection_window_size
        self.initial_in = options.initial_stream_window_size
        self.unreturned = 0
        self.return_at = self.window_in // 2
        self.stream_return_at = self.initial_in // 2

    def take(self) -> list[bytes]:
        """What is to be written now, as pieces in their order.

        Not to be asked for while the transport is full: what has not been taken is what the limits on queued frames
        count.
        """
        out = self.out
        self.out = []
        self.control_frames = self.pumped = 0
        self.bulky = False
        return out

    def pause(self) -> None:
        """The transport is full: data waits, and only what controls the connection still goes to ``out``."""
        self.paused = True

    def resume(self) -> None:
        """The transport has room again."""
        self.paused = False
        self._pump()

    def send_data(self, stream_id: int, data: bytes, end: bool) -> bool:
        """Send, or queue, data of a stream; True if the stream is full now. Nothing, for one that was reset."""
        stream = self.streams.get(stream_id)
        if stream is None or STREAM[stream.state][SEND_DATA] < 0:
            return False
        size = len(data)
        queue = stream.queue
        if (
            queue is None
            and size <= self.max_frame_out
            and size <= self.window_out
            and size <= self.initial_out + stream.credit_out
            and not self.paused
        ):
            if size:
                if size >= BULKY:
                    self.bulky = True
                self.window_out -= size
                stream.credit_out -= size
                self.out += (write_header(size << 8, 1 if end else 0, stream_id), data)
            elif end:
                self.out.append(write_header(DATA, END_STREAM, stream_id))
            else:
                return False
            self.data_frames_sent += 1
            if end:
                if stream.state == HALF_CLOSED_REMOTE:
                    self._closed(stream)
                else:
                    self._sent_end(stream)
            return False
        if queue is None:
            queue = stream.make_queue()
        elif stream.ending:
            return False
        if size:
            if queue and size + len(queue[-1]) <= _LONGEST_CRUMB:
                queue[-1] += data  # many small pieces would take many times their size
            else:
                queue.append(data)
            stream.queued += size
        stream.ending = end
        self._await_window(stream)
        self._pump()
        if stream.queued >= self.options.max_queued and not stream.ending:
            stream.full = True
        return stream.full

    def send_piece(self, stream: Stream, data: bytes) -> bool:
        """Send what came as one frame, on an open stream that goes on; False, and nothing is sent, if it would have to wait.

        No frame that we take is larger than the least size that each peer takes.
        """
        size = len(data)
        if (
            stream.queue is not None
            or size > self.window_out
            or size > self.initial_out + stream.credit_out
            or self.paused
            or stream.state == HALF_CLOSED_LOCAL
        ):
            return False
        if size >= BULKY:
            self.bulky = True
        self.window_out -= size
        stream.credit_out -= size
        self.out += (write_header(size << 8, 0, stream.id), data)
        self.data_frames_sent += 1
        return True

    def send_trailers(self, stream_id: int, fields: list[Field]) -> None:
        """Trailers, and the end of the stream, behind all of its data."""
        stream = self.streams.get(stream_id)
        if stream is None or STREAM[stream.state][SEND_HEADERS] < 0:
            return
        if stream.queue is None:
            self._send_trailers(stream, fields)
        elif not stream.ending:
            stream.ending = True
            stream.trailers = fields

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream with RST_STREAM. Nothing happens if it is over already."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._forget(stream, RESET_BY_US)
            self._control(rst_stream(stream_id, code))

    def is_full(self, stream_id: int) -> bool:
        """Whether the stream's queue is full: ``on_window`` will tell when it has room."""
        stream = self.streams.get(stream_id)
        return stream is not None and stream.queue is not None and stream.full

    def give_up(self) -> None:
        """The connection is lost: forget what was to be sent on its streams."""
        self.sink = None
        self.streams.clear()
        self.waiting.clear()
        self.blocked.clear()
        self.out.clear()

    def is_queued(self, stream_id: int) -> bool:
        """Whether something of the stream waits for the peer's window."""
        stream = self.streams.get(stream_id)
        return stream is not None and stream.queue is not None

    def consumed(self, stream_id: int, size: int) -> None:
        """``size`` octets of what ``on_data`` delivered are out of the way: the peer may send as many more."""
        self.unreturned += size
        if self.unreturned >= self.return_at:
            self._return(0)
        stream = self.streams.get(stream_id)
        if stream is not None and stream.state < HALF_CLOSED_REMOTE:
            stream.unreturned += size
            if stream.unreturned >= self.stream_return_at:
                self._return_to(stream)

    def _return_to(self, stream: Stream) -> None:
        """Give octets back to a stream's window."""
        stream.credit_in += stream.unreturned
        self._control(window_update(stream.id, stream.unreturned))
        stream.unreturned = 0

    def _return(self, size: int) -> None:
        """Give octets back to the connection's window."""
        self.unreturned += size
        if self.unreturned >= self.return_at:
            self.window_in += self.unreturned
            self._control(window_update(0, self.unreturned))
            self.unreturned = 0

    def _control(self, frame: bytes) -> None:
        self.control_frames += 1
        self.out.append(frame)

    def _send_block(self, stream_id: int, block: bytes, flags: int) -> None:
        """A header block as HEADERS, and CONTINUATION if it is long (RFC 9113 section 4.3)."""
        size = len(block)
        most = self.max_frame_out
        self.sent_head_size = size + HEADER_SIZE
        if size <= most:
            self.out.append(write_header(size << 8 | HEADERS, flags | END_HEADERS, stream_id) + block)
            return
        kind = HEADERS
        for at in range(0, size, most):
            piece = block[at : at + most]
            if at + most >= size:
                flags |= END_HEADERS
            self.out.append(write_header(len(piece) << 8 | kind, flags, stream_id) + piece)
            kind = CONTINUATION
            flags = 0

    def _send_trailers(self, stream: Stream, fields: list[Field]) -> None:
        self._send_block(stream.id, self.encoder.encode(fields), END_STREAM)
        self._sent_end(stream)

    def _sent_end(self, stream: Stream) -> None:
        stream.state = STREAM[stream.state][SEND_END_STREAM]
        if stream.state == CLOSED:
            self._closed(stream)

    def _closed(self, stream: Stream) -> None:
        """Both sides have ended the stream."""
        del self.streams[stream.id]

    def _forget(self, stream: Stream, state: int) -> None:
        """A reset has ended the stream: ``state`` says whose."""
        stream.state = state
        if stream.queue is not None:
            stream.queue = None
            stream.full = False
            self.blocked.pop(stream, None)
            if stream.waiting:
                self.waiting.remove(stream)
        del self.streams[stream.id]
        self._remember(stream.id, state)

    def _remember(self, stream_id: int, state: int) -> None:
        ended = self.ended
        if len(ended) >= _REMEMBERED_RESETS:
            oldest = next(iter(ended))
            del ended[oldest]
            if oldest > self.forgotten:
                self.forgotten = oldest
        ended[stream_id] = state

    def _await_window(self, stream: Stream) -> None:
        if stream.queue is not None and not stream.waiting:
            stream.waiting = True
            self.waiting.append(stream)
            self.blocked.pop(stream, None)

    def _pump(self) -> None:
        """Send what the windows admit of the queues: a frame of each stream in turn."""
        waiting = self.waiting
        roomy: list[Stream] | None = None
        most = self.options.max_queued // 2
        while waiting and not self.paused:
            stream = waiting[0]
            if stream.queue and self.window_out <= 0:
                break
            waiting.popleft()
            if self._send_queued(stream):
                waiting.append(stream)
            else:
                stream.waiting = False
                if stream.queue is not None:
                    self.blocked[stream] = None
            if stream.full and stream.queued <= most:
                stream.full = False
                if not stream.ending:
                    roomy = [*(roomy or ()), stream]
        for stream in roomy or ():
            if stream.state in (OPEN, HALF_CLOSED_REMOTE):
                self.sink.on_window(stream.id)  # type: ignore[union-attr]

    def _send_queued(self, stream: Stream) -> bool:
        """Send one frame of a stream's queue; True if it has more that its own window admits."""
        queue = stream.queue
        if queue is None:
            return False
        stream_window = self.initial_out + stream.credit_out
        if queue:
            most = min(self.max_frame_out, self.window_out, stream_window)
            if most <= 0:
                return False
            offset = stream.offset
            piece = queue[0]
            if len(piece) - offset <= most:
                queue.popleft()
                if offset:
                    piece = piece[offset:]
                    stream.offset = 0
            else:
                piece = piece[offset : offset + most]
                stream.offset = offset + most
            size = len(piece)
            self.window_out -= size
            stream.credit_out -= size
            stream.queued -= size
        else:
            piece = b""
            size = 0
        last = not queue
        end = last and stream.ending and stream.trailers is None
        if size or end:
            if size >= BULKY:
                self.bulky = True
            self.out += (write_header(size << 8, 1 if end else 0, stream.id), piece)
            self.pumped += 2
            self.data_frames_sent += 1
        if not last:
            return stream_window > size
        stream.queue = None
        if end:
            self._sent_end(stream)
        elif stream.trailers is not None:
            self._send_trailers(stream, stream.trailers)
        return False
