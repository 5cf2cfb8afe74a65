"""An upstream's side of one HTTP/2 connection: each stream is answered by the steps of a reply, and all is recorded.

Frames are checked for nothing: what the proxy sent is what the outcome shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.differential.case import Close, Delay, ReadBody, ReadUntil, Reply, Reset, Tunnel, UpstreamStep
from tests.differential.http2_client import fields_in, frames_of
from tests.differential.http2_frames import (
    INITIAL_WINDOW_SIZE,
    MAX_FRAME,
    code_name,
    data,
    frame,
    goaway,
    headers,
    reset,
    settings,
    window,
)
from tests.differential.http2_steps import Announce, Body, GoAway, Grant, Head, RawFrame, ResetStream
from tests.differential.seen import Seen

OK = Reply((ReadBody(), Head([(":status", "200")]), Body(b"from {upstream}", end=True)))
USUAL_WINDOW = 65535


class _Over(Exception):
    """The stream was reset or the connection closed."""


@dataclass(slots=True)
class _Stream:
    number: int
    seen: Seen
    window: int
    task: asyncio.Task[None] | None = None
    has_head: bool = False
    echoed: int = 0
    unread: list[bytes] = field(default_factory=list)


class Http2Connection:
    """Serves one connection, whose preface has been read up to the empty line in its middle.

    announced: the upstream's SETTINGS; record: keeps what arrives; reply: the answer to the next stream.
    """

    def __init__(
        self,
        name: str,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        announced: Mapping[int, int],
        record: Callable[[Seen], Seen],
        reply: Callable[[str, Reply], Reply],
    ) -> None:
        self.name = name
        self.number = number
        self.reader = reader
        self.writer = writer
        self.announced = announced
        self.record = record
        self.reply = reply
        self.streams: dict[int, _Stream] = {}
        self.closed = False
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 24
        self._block = b""
        self._block_ends_stream = False
        self._window = USUAL_WINDOW
        self._stream_window = USUAL_WINDOW
        self._progress = asyncio.Event()

    async def serve(self) -> None:
        """Read to the end of the connection."""
        await self.reader.readexactly(len(b"SM\r\n\r\n"))
        self.writer.write(settings(self.announced))
        rest = b""
        try:
            while received := await self.reader.read(1 << 16):
                frames, rest = frames_of(rest + received)
                for one in frames:
                    self._take(one)
                self._wake()
        except (ConnectionError, HyperframeError, HPACKError):
            pass
        finally:
            self.closed = True
            self._wake()
            tasks = [stream.task for stream in self.streams.values() if stream.task is not None]
            await asyncio.gather(*tasks, return_exceptions=True)
            self.writer.close()

    def end(self) -> None:
        """Close our side (FIN), so that the proxy has no connection left from an earlier case."""
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write_eof()

    def _wake(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def _take(self, frame: Frame) -> None:
        match frame:
            case HeadersFrame():
                self._block = frame.data
                self._block_ends_stream = "END_STREAM" in frame.flags
                self._end_block(frame)
            case ContinuationFrame():
                self._block += frame.data
                self._end_block(frame)
            case DataFrame():
                self._take_data(frame)
            case RstStreamFrame():
                if stream := self.streams.get(frame.stream_id):
                    stream.seen.reset = stream.seen.reset or code_name(frame.error_code)
            case WindowUpdateFrame():
                if frame.stream_id == 0:
                    self._window += frame.window_increment
                elif stream := self.streams.get(frame.stream_id):
                    stream.window += frame.window_increment
            case SettingsFrame():
                if "ACK" not in frame.flags:
                    self._take_settings(frame)
            case PingFrame():
                if "ACK" not in frame.flags:
                    self.writer.write(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]).serialize())

    def _take_settings(self, frame: SettingsFrame) -> None:
        size = frame.settings.get(INITIAL_WINDOW_SIZE)
        if size is not None:
            for stream in self.streams.values():
                stream.window += size - self._stream_window
            self._stream_window = size
        self.writer.write(SettingsFrame(flags=["ACK"]).serialize())

    def _take_data(self, frame: DataFrame) -> None:
        used = frame.flow_controlled_length
        if used:
            self.writer.write(window(0, used))
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            return
        stream.seen.body += frame.data
        if "END_STREAM" in frame.flags:
            stream.seen.complete = True
        elif used and not stream.seen.reset:
            self.writer.write(window(stream.number, used))

    def _end_block(self, frame: Frame) -> None:
        if "END_HEADERS" not in frame.flags:
            return
        fields = fields_in(self._decoder, self._block)
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            seen = self.record(Seen(self.name, headers=fields, connection=self.number, protocol="HTTP/2"))
            stream = self.streams[frame.stream_id] = _Stream(frame.stream_id, seen, self._stream_window)
            stream.task = asyncio.create_task(self._answer(stream))
        else:
            stream.seen.trailers += fields
        if self._block_ends_stream:
            stream.seen.complete = True

    async def _answer(self, stream: _Stream) -> None:
        method = next((value for name, value in stream.seen.headers if name == ":method"), "")
        try:
            for step in self.reply(self.name, OK).steps:
                await self._step(step, stream, method)
            await self._until(stream, lambda: stream.seen.complete)
        except (_Over, ConnectionError):
            pass
        except TypeError as error:
            stream.seen.fault = str(error)
        finally:
            stream.seen.done = True

    async def _step(self, step: UpstreamStep, stream: _Stream, method: str) -> None:
        number = stream.number
        match step:
            case ReadBody():
                await self._until(stream, lambda: stream.seen.complete)
            case ReadUntil(wanted):
                await self._until(stream, lambda: wanted in stream.seen.body)
            case Delay(seconds):
                await self._delay(stream, seconds)
            case Head(fields, end):
                final = not any(name == ":status" and value.startswith("1") for name, value in fields)
                over = end or (method == "HEAD" and final)
                self._check(stream)
                self.writer.write(headers(number, fields, end=over))
            case Body(content, end):
                if method != "HEAD":
                    await self._send(stream, content.replace(b"{upstream}", self.name.encode()), end)
            case ResetStream(code):
                self.writer.write(reset(number, code))
                raise _Over
            case GoAway(code, last):
                self.writer.write(goaway(code, max(number + last, 0)))
            case RawFrame(kind, flags, payload, where):
                self.writer.write(frame(kind, flags, number if where is None else where, payload))
            case Grant(octets):
                self.writer.write(window(number, octets))
            case Announce(values):
                self.writer.write(settings(dict(values)))
            case Close():
                self.writer.close()
                raise _Over
            case Reset():
                connection = self.writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
                raise _Over
            case Tunnel():
                await self._echo(stream)
            case bytes():
                raise TypeError(f"bytes for a stream of HTTP/2: {step!r}")

    def _check(self, stream: _Stream) -> None:
        if self.closed or stream.seen.reset:
            raise _Over

    async def _until(self, stream: _Stream, condition: Callable[[], bool]) -> None:
        """Wait for a condition that frames bring about."""
        while not condition():
            self._check(stream)
            await self._progress.wait()

    async def _delay(self, stream: _Stream, seconds: float) -> None:
        """Wait, but not for a proxy that gave up meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check(stream)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._progress.wait(), left)

    async def _send(self, stream: _Stream, content: bytes, end: bool) -> None:
        self._check(stream)
        while content:
            await self._until(stream, lambda: min(self._window, stream.window) > 0)
            size = min(self._window, stream.window, MAX_FRAME - 1, len(content))
            self._window -= size
            stream.window -= size
            part, content = content[:size], content[size:]
            self.writer.write(data(stream.number, part, end=end and not content))
            await self.writer.drain()
            if end and not content:
                return
        if end:
            self.writer.write(data(stream.number, b"", end=True))

    async def _echo(self, stream: _Stream) -> None:
        """Send back in capitals what arrives, and end when it ends."""
        while True:
            await self._until(stream, lambda: stream.seen.complete or len(stream.seen.body) > stream.echoed)
            part = stream.seen.body[stream.echoed :]
            stream.echoed += len(part)
            if part:
                await self._send(stream, part.upper(), False)
            if stream.seen.complete and len(stream.seen.body) == stream.echoed:
                await self._send(stream, b"", True)
                return


def answer(
    status: int = 200,
    body: bytes | None = None,
    fields: Sequence[tuple[str, str]] = (),
    *,
    trailers: Sequence[tuple[str, str]] | None = None,
    length: bool = False,
    early: bool = False,
    delay: float = 0.0,
    before: Sequence[UpstreamStep] = (),
    then: Sequence[UpstreamStep] = (),
) -> Reply:
    """A response over HTTP/2: ``{upstream}`` in the body stands for the upstream's name.

    length: with its Content-Length, for a name of one letter; early: before the body is read; before: steps ahead of the
    head; then: steps after the end.
    """
    content = b"from {upstream}" if body is None else body
    lines = [(":status", str(status)), *fields]
    if length:
        lines.append(("content-length", str(len(content.replace(b"{upstream}", b"a")))))
    steps: list[UpstreamStep] = [] if early else [ReadBody()]
    if delay:
        steps.append(Delay(delay))
    steps += before
    if not content and trailers is None:
        steps.append(Head(lines, end=True))
    else:
        steps.append(Head(lines))
        if content:
            steps.append(Body(content, end=trailers is None))
    if trailers is not None:
        steps.append(Head(trailers, end=True))
    return Reply((*steps, *then))
