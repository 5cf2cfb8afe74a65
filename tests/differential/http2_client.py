"""What an HTTP/2 client sees: a transcript by stream that does not depend on timing, frames or HPACK's representation.

The transcript does no I/O: `Transcript.receive` takes what was read and gives back what a client answers of itself
(acknowledgements, and as much window as was used).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.differential.case import Send, Step
from tests.differential.http2_frames import PREFACE, FieldLine, code_name, opening

_HEAD = 9
_HEADERS = 1


@dataclass(slots=True)
class StreamSeen:
    """One stream as the client saw it. ``reset`` is the name of the code of RST_STREAM."""

    interim: list[list[FieldLine]] = field(default_factory=list)
    head: list[FieldLine] | None = None
    body: bytes = b""
    trailers: list[FieldLine] | None = None
    ended: bool = False
    reset: str | None = None

    @property
    def heads(self) -> int:
        return len(self.interim) + (self.head is not None)

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def add_head(self, fields: list[FieldLine]) -> None:
        """Informational heads, then the response's, then trailers."""
        if self.head is not None:
            self.trailers = (self.trailers or []) + fields
        elif any(name == ":status" and value.startswith("1") for name, value in fields):
            self.interim.append(fields)
        else:
            self.head = fields


def frames_of(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning, and what remains. Raises HyperframeError for what no frame can be."""
    frames: list[Frame] = []
    while len(data) >= _HEAD:
        frame, length = Frame.parse_frame_header(memoryview(data[:_HEAD]))
        if len(data) < _HEAD + length:
            break
        frame.parse_body(memoryview(data[_HEAD : _HEAD + length]))
        frames.append(frame)
        data = data[_HEAD + length :]
    return frames, data


def fields_in(decoder: Decoder, block: bytes) -> list[FieldLine]:
    """A decoded header block: each octet is one character."""
    return [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in decoder.decode(block, True)
    ]


class Transcript:
    """Everything that one connection has brought.

    goaways: names of the codes with the last stream, in order; settings: those of the server's SETTINGS; settled: the
    server has acknowledged ours; rest: bytes that are no HTTP/2, where the server speaks something else.
    """

    def __init__(self) -> None:
        self.streams: dict[int, StreamSeen] = {}
        self.goaways: list[tuple[str, int]] = []
        self.settings: dict[int, int] = {}
        self.settled = False
        self.pongs = 0
        self.pushed = 0
        self.rest = b""
        self._broken = False
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 24
        self._block = b""
        self._block_ends_stream = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes in, and give those with which a client answers at once."""
        self.rest += data
        if self._broken or self.rest.startswith(b"HTTP/1"):
            return b""
        answers: list[Frame] = []
        try:
            frames, self.rest = frames_of(self.rest)
            for frame in frames:
                answers += self._take(frame)
        except (HyperframeError, HPACKError):
            self._broken = True
        return b"".join(answer.serialize() for answer in answers)

    def stream(self, number: int) -> StreamSeen:
        return self.streams.setdefault(number, StreamSeen())

    def over(self, streams: Iterable[int]) -> bool:
        """Whether all of these streams have come to their end."""
        return all(number in self.streams and self.streams[number].over for number in streams)

    def _take(self, frame: Frame) -> list[Frame]:
        match frame:
            case HeadersFrame():
                self._block = frame.data
                self._block_ends_stream = "END_STREAM" in frame.flags
                self._end_block(frame)
            case ContinuationFrame():
                self._block += frame.data
                self._end_block(frame)
            case DataFrame():
                return self._take_data(frame)
            case RstStreamFrame():
                self.stream(frame.stream_id).reset = code_name(frame.error_code)
            case GoAwayFrame():
                self.goaways.append((code_name(frame.error_code), frame.last_stream_id))
            case PushPromiseFrame():
                self.pushed += 1
            case SettingsFrame():
                if "ACK" in frame.flags:
                    self.settled = True
                else:
                    self.settings.update(frame.settings)
                    return [SettingsFrame(flags=["ACK"])]
            case PingFrame():
                if "ACK" not in frame.flags:
                    return [PingFrame(opaque_data=frame.opaque_data, flags=["ACK"])]
                self.pongs += 1
        return []

    def _take_data(self, frame: DataFrame) -> list[Frame]:
        stream = self.stream(frame.stream_id)
        stream.body += frame.data
        used = frame.flow_controlled_length
        grants: list[Frame] = [WindowUpdateFrame(0, window_increment=used)] if used else []
        if "END_STREAM" in frame.flags:
            stream.ended = True
        elif used:
            grants.append(WindowUpdateFrame(frame.stream_id, window_increment=used))
        return grants

    def _end_block(self, frame: Frame) -> None:
        if "END_HEADERS" in frame.flags:
            stream = self.stream(frame.stream_id)
            stream.add_head(fields_in(self._decoder, self._block))
            stream.ended = stream.ended or self._block_ends_stream


def opened(steps: Sequence[Step]) -> list[Step]:
    """The steps with a client's usual opening before the first bytes on each connection that lacks the preface."""
    found: list[Step] = []
    begun: set[int] = set()
    for step in steps:
        if isinstance(step, Send) and step.connection not in begun:
            begun.add(step.connection)
            if not step.data.startswith(PREFACE[:1]):
                step = Send(opening() + step.data, step.connection)
        found.append(step)
    return found


def streams_of(steps: Sequence[Step]) -> dict[int, tuple[int, ...]]:
    """The streams that HEADERS open on each connection, in order; read past what cannot be cut into frames."""
    sent: dict[int, bytes] = {}
    for step in steps:
        if isinstance(step, Send):
            sent[step.connection] = sent.get(step.connection, b"") + step.data
    return {connection: _opened_in(data.removeprefix(PREFACE)) for connection, data in sent.items()}


def _opened_in(data: bytes) -> tuple[int, ...]:
    found: dict[int, None] = {}
    while len(data) >= _HEAD:
        length, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == _HEADERS:
            found[int.from_bytes(data[5:9], "big") & 0x7FFFFFFF] = None
        data = data[_HEAD + length :]
    return tuple(found)
