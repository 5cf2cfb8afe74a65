"""Requests without a pause over HTTP/2, by clients that obey a GOAWAY: no new stream then, and patience with those that are open.

In frames (hyperframe, hpack), since the h2 library takes nothing more of a connection after a GOAWAY.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_STREAM = (1 << 31) - 1
"""What the first of two GOAWAYs names: every stream that there may be."""


class Http2Load:
    """So many connections with so many streams each, until ``end``. ``lost`` is what became of streams that were not answered
    with 200; ``goaways`` has for each connection that was ended what its GOAWAYs named.
    """

    def __init__(self, port: int, connections: int, streams: int) -> None:
        self.port = port
        self.streams = streams
        self.answered = 0
        self.lost: list[str] = []
        self.goaways: list[list[int]] = []
        self.ending = False
        self._tasks = [asyncio.create_task(self._connect_on_and_on()) for _ in range(connections)]

    async def _connect_on_and_on(self) -> None:
        while not self.ending:
            connection = _Connection(self)
            try:
                await connection.run()
            except (OSError, asyncio.IncompleteReadError) as error:
                if connection.under_way or not connection.named:
                    self.lost.append(f"{connection.under_way} after {connection.named}: {error!r}")
            if connection.named:
                self.goaways.append(connection.named)

    async def reach(self, answers: int, timeout: float = 30.0) -> None:
        """Wait until so many more requests were answered."""
        goal = self.answered + answers
        async with asyncio.timeout(timeout):
            while self.answered < goal and not self.lost:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Let every stream be answered."""
        self.ending = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)


class _Connection:
    def __init__(self, load: Http2Load) -> None:
        self.load = load
        self.under_way: set[int] = set()
        self.named: list[int] = []
        self._next = 1
        self._encoder, self._decoder = Encoder(), Decoder()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.load.port)
        try:
            writer.write(PREFACE + SettingsFrame().serialize() + b"".join(self._ask(self.load.streams)))
            while self.under_way or self.named:  # after a GOAWAY, until the other side closes
                frame = await _read(reader)
                writer.write(b"".join(self._answer(frame)))
        finally:
            writer.close()

    def _ask(self, count: int) -> Iterator[bytes]:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
        for _ in range(count):
            head = HeadersFrame(self._next, data=self._encoder.encode(fields), flags=["END_HEADERS", "END_STREAM"])
            self.under_way.add(self._next)
            self._next += 2
            yield head.serialize()

    def _answer(self, frame: Frame) -> Iterator[bytes]:
        if isinstance(frame, HeadersFrame):
            status = dict(self._decoder.decode(frame.data))[":status"]
            if status != "200":
                self.load.lost.append(f"stream {frame.stream_id} was answered with {status}")
        elif isinstance(frame, DataFrame) and frame.data:
            yield WindowUpdateFrame(0, window_increment=len(frame.data)).serialize()
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            yield SettingsFrame(flags=["ACK"]).serialize()
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            yield PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]).serialize()
        elif isinstance(frame, GoAwayFrame):
            self.named.append(frame.last_stream_id)
            if frame.error_code:
                self.load.lost.append(f"GOAWAY with error {frame.error_code}")
        elif isinstance(frame, RstStreamFrame):
            self.load.lost.append(f"stream {frame.stream_id} was reset with error {frame.error_code}")
            self.under_way.discard(frame.stream_id)
        if "END_STREAM" in frame.flags:
            self.under_way.remove(frame.stream_id)
            self.load.answered += 1
            if not self.load.ending and not self.named:
                yield from self._ask(1)


async def _read(reader: asyncio.StreamReader) -> Frame:
    frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
    frame.parse_body(memoryview(await reader.readexactly(length)))
    return frame
