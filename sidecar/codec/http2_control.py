"""What controls an HTTP/2 connection: settings, pings, windows, resets, GOAWAY, and errors (RFC 9113 sections 5 and 6)."""

from __future__ import annotations

from typing import Final

from sidecar.codec.errors import ProtocolError
from sidecar.codec.hpack_decoder import HpackDecoder
from sidecar.codec.http2_frames import (
    ACK,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM_ID,
    LARGEST_WINDOW,
    LEAST_MAX_FRAME_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MOST_MAX_FRAME_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    SETTINGS_ACK,
    STREAM_CLOSED,
    goaway,
    ping,
    read_pair,
    read_setting,
    rst_stream,
)
from sidecar.codec.http2_head import Known
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_output import Http2Output
from sidecar.codec.http2_states import (
    CLOSED,
    CLOSED_ERROR,
    CLOSED_STREAM_ERROR,
    DEAD,
    IDLE,
    IGNORE,
    RECV_RST_STREAM,
    RECV_WINDOW_UPDATE,
    RESET_BY_PEER,
    RESET_BY_US,
    STREAM,
)

_MOST_SETTINGS: Final = 32  # in one frame


class Http2Error(ProtocolError):
    """The connection is over; ``code`` is what its GOAWAY says (RFC 9113 section 7)."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code


class Http2Control(Http2Output):
    """The frames that carry no message, and what is done about those that should not have come."""

    __slots__ = (
        "decoder", "draining", "extended_connect", "goaway_received", "last_accepted",
        "most_credit", "peer_max_streams", "priority_frames", "resets", "state", "unacknowledged", "window_updates",
    )  # fmt: skip

    decoder: HpackDecoder[Known]

    def __init__(self, options: Http2Options, first_state: int) -> None:
        super().__init__(options)
        self.state = first_state
        self.unacknowledged = 0  # SETTINGS of ours
        self.peer_max_streams = LARGEST_STREAM_ID
        self.extended_connect = False  # whether the peer takes it
        self.goaway_received = False
        self.draining = False  # GOAWAY has been sent
        self.last_accepted = LARGEST_STREAM_ID  # streams of the peer above it are ignored
        self.priority_frames = 0
        self.window_updates = 0
        self.most_credit = 0  # no stream's window is larger than the initial one by more
        self.resets = 0.0  # streams that were reset, but for those that are made up for

    def ping(self, opaque: bytes) -> None:
        """Send a PING with 8 octets; ``on_ping_ack`` tells when it came back."""
        self._control(ping(opaque))

    def tick(self, seconds: float) -> None:
        """Time has passed: some resets are forgiven."""
        self.resets = max(0.0, self.resets - seconds * self.options.resets_forgiven)

    @property
    def opened_streams(self) -> int:
        """How many streams there have been."""
        raise NotImplementedError

    def shutdown_notice(self) -> None:
        """The first stage of a drain (RFC 9113 section 6.8): the peer should open no more streams, but may."""
        if not self.draining:
            self.draining = True
            self._control(goaway(LARGEST_STREAM_ID, NO_ERROR))

    def go_away(self, code: int = NO_ERROR, debug: bytes = b"") -> None:
        """The second stage, or the only one: streams above the last that was seen are ignored from now on."""
        self.draining = True
        self.last_accepted = min(self.last_accepted, self._last_seen())
        self._control(goaway(self.last_accepted, code, debug))

    def fail(self, code: int, details: str) -> Http2Error:
        """End the connection with GOAWAY and take nothing more; the error to raise."""
        if self.state != DEAD:
            self.go_away(code)
            self.state = DEAD
        return Http2Error(code, details)

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream has never been used, nor skipped."""
        raise NotImplementedError

    def _last_seen(self) -> int:
        """The last of the peer's streams that was taken."""
        raise NotImplementedError

    def _check_resets(self) -> None:
        """One more stream has not ended well, and the peer was the reason."""

    def _goaway_streams(self, last_stream_id: int) -> None:
        """Streams of ours above this one will not be processed."""

    def _state_of(self, stream_id: int) -> int:
        """The state of a stream that is not open."""
        if self.draining and stream_id > self.last_accepted:
            return RESET_BY_US
        if self._is_idle(stream_id):
            return IDLE
        return self.ended.get(stream_id, CLOSED if stream_id > self.forgotten else RESET_BY_US)

    def _stray(self, stream_id: int, event: int) -> None:
        """A frame for a stream that is not open, or not in that direction: what the table says."""
        stream = self.streams.get(stream_id)
        verdict = STREAM[self._state_of(stream_id) if stream is None else stream.state][event]
        if verdict == IGNORE:
            return
        if verdict == CLOSED_STREAM_ERROR:
            self._stream_error(stream_id, STREAM_CLOSED, "http2.stream_closed")
            return
        # What would open an idle stream comes here for one that the peer may not open.
        raise self.fail(STREAM_CLOSED if verdict == CLOSED_ERROR else PROTOCOL_ERROR, "http2.codec_error")

    def _stream_error(self, stream_id: int, code: int, details: str, new: bool = False) -> None:
        """Reset a stream for what the peer did, and tell the owner. Raises for one too many.

        ``new``: the stream would have begun with this.
        """
        stream = self.streams.get(stream_id)
        self._control(rst_stream(stream_id, code))
        if stream is None:
            self._remember(stream_id, RESET_BY_US)
            if new:
                self.sink.on_refused(stream_id, code, details)  # type: ignore[union-attr]
        else:
            self._forget(stream, RESET_BY_US)
            self.sink.on_reset(stream_id, code, details)  # type: ignore[union-attr]
        self._check_resets()

    def _malformed(self, stream_id: int, details: str, new: bool = False) -> None:
        """A message breaks the rules (section 8.1.1): its stream ends, or, as Envoy has it, the connection."""
        if not self.options.stream_error_on_invalid_http_messaging:
            if new:
                self.sink.on_refused(stream_id, NO_ERROR, details)  # type: ignore[union-attr]
            raise self.fail(PROTOCOL_ERROR, details)
        self._stream_error(stream_id, PROTOCOL_ERROR, details, new)

    def _priority(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        """Deprecated (section 5.3): checked, counted and forgotten, even where a stream depends on itself."""
        if not stream_id:
            raise self.fail(PROTOCOL_ERROR, "http2.stream_zero")
        self.priority_frames += 1
        most = self.options.max_inbound_priority_frames_per_stream
        if self.priority_frames > most * (1 + self.opened_streams):
            raise self.fail(ENHANCE_YOUR_CALM, "http2.inbound_priority_frames_flood")
        if end - at != 5:
            if self._state_of(stream_id) == IDLE and stream_id not in self.streams:
                raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")  # an idle stream cannot be reset
            self._stream_error(stream_id, FRAME_SIZE_ERROR, "http2.frame_size")

    def _rst_stream(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if end - at != 4:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._stray(stream_id, RECV_RST_STREAM)
            return
        self._forget(stream, RESET_BY_PEER)
        code = int.from_bytes(data[at:end], "big")
        self.sink.on_reset(stream_id, code, "http2.remote_reset")  # type: ignore[union-attr]
        self._check_resets()

    def _settings(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if stream_id:
            raise self.fail(PROTOCOL_ERROR, "http2.stream_not_zero")
        length = end - at
        if flags & ACK:
            if length:
                raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
            if self.unacknowledged:
                self.unacknowledged -= 1
                self.decoder.allow(self.options.hpack_table_size)
            return
        if length % 6:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        if length > 6 * _MOST_SETTINGS:
            raise self.fail(ENHANCE_YOUR_CALM, "http2.settings_flood")
        for place in range(at, end, 6):
            number, value = read_setting(data, place)
            self._setting(number, value)
        self._control(SETTINGS_ACK)  # before any data that relies on them
        if self.waiting:
            self._pump()
        self.sink.on_settings()  # type: ignore[union-attr]

    def _setting(self, number: int, value: int) -> None:
        if number == HEADER_TABLE_SIZE:
            self.encoder.allow(value)
        elif number == MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = min(value, self.options.max_concurrent_streams)
        elif number == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise self.fail(FLOW_CONTROL_ERROR, "http2.settings")
            self._initial_window(value)
        elif number == MAX_FRAME_SIZE:
            if not LEAST_MAX_FRAME_SIZE <= value <= MOST_MAX_FRAME_SIZE:
                raise self.fail(PROTOCOL_ERROR, "http2.settings")
        elif number in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL):
            if value > 1 or (number == ENABLE_CONNECT_PROTOCOL and self.extended_connect and not value):
                raise self.fail(PROTOCOL_ERROR, "http2.settings")
            if number == ENABLE_CONNECT_PROTOCOL:
                self.extended_connect = bool(value)

    def _initial_window(self, size: int) -> None:
        """The initial window applies to the streams that are open, too (section 6.9.2)."""
        grown = size > self.initial_out
        self.initial_out = size
        if size + self.most_credit > LARGEST_WINDOW:
            self.most_credit = max([stream.credit_out for stream in self.streams.values()], default=0)
            if size + self.most_credit > LARGEST_WINDOW:
                raise self.fail(FLOW_CONTROL_ERROR, "http2.settings")
        if grown:
            for stream in tuple(self.blocked):
                self._await_window(stream)

    def _ping(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if stream_id:
            raise self.fail(PROTOCOL_ERROR, "http2.stream_not_zero")
        if end - at != 8:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        if flags & ACK:
            self.sink.on_ping_ack(data[at:end])  # type: ignore[union-attr]
        else:
            self._control(ping(data[at:end], ACK))
            if self.control_frames > self.options.max_outbound_control_frames:
                raise self.fail(ENHANCE_YOUR_CALM, "http2.outbound_control_flood")

    def _goaway(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if stream_id:
            raise self.fail(PROTOCOL_ERROR, "http2.stream_not_zero")
        if end - at < 8:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        last, code = read_pair(data, at)
        self.goaway_received = True
        self._goaway_streams(last & LARGEST_STREAM_ID)
        self.sink.on_goaway(last & LARGEST_STREAM_ID, code, data[at + 8 : end])  # type: ignore[union-attr]

    def _window_update(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        if end - at != 4:
            raise self.fail(FRAME_SIZE_ERROR, "http2.frame_size")
        self.window_updates += 1
        each = self.options.max_inbound_window_update_frames_per_data_frame_sent
        if self.window_updates > 5 + 2 * (self.opened_streams + each * self.data_frames_sent):
            raise self.fail(ENHANCE_YOUR_CALM, "http2.inbound_window_update_frames_flood")
        increment = int.from_bytes(data[at:end], "big") & LARGEST_WINDOW
        if not stream_id:
            if not increment:
                raise self.fail(PROTOCOL_ERROR, "http2.window_update")
            self.window_out += increment
            if self.window_out > LARGEST_WINDOW:
                raise self.fail(FLOW_CONTROL_ERROR, "http2.window_update")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._stray(stream_id, RECV_WINDOW_UPDATE)
                return
            stream.credit_out += increment
            if stream.credit_out > self.most_credit:
                self.most_credit = stream.credit_out
            if not increment or self.initial_out + stream.credit_out > LARGEST_WINDOW:
                code = FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR
                self._stream_error(stream_id, code, "http2.window_update")
                return
            self._await_window(stream)
        if self.waiting:
            self._pump()

    def _refused_push(self, data: bytes, at: int, end: int, flags: int, stream_id: int) -> None:
        raise self.fail(PROTOCOL_ERROR, "http2.push_promise")
