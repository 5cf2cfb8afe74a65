"""The state machines of HTTP/2: one table for streams, one for connections (RFC 9113 sections 3.4 and 5.1).

A row holds what each event leads to: a state, or a verdict (a negative number). Streams that are not open have no object:
their state follows from their number and from the short memory of those that were reset.
"""

from __future__ import annotations

from typing import Final

from sidecar.codec.http2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

# States of streams. Reserved ones do not exist, since push is refused.
IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_LOCAL: Final = 2
HALF_CLOSED_REMOTE: Final = 3
CLOSED: Final = 4
RESET_BY_US: Final = 5
RESET_BY_PEER: Final = 6

# Events of streams. A frame with END_STREAM is two events.
RECV_HEADERS: Final = 0
RECV_DATA: Final = 1
RECV_END_STREAM: Final = 2
RECV_RST_STREAM: Final = 3
RECV_WINDOW_UPDATE: Final = 4
SEND_HEADERS: Final = 5
SEND_DATA: Final = 6
SEND_END_STREAM: Final = 7
SEND_RST_STREAM: Final = 8

# Verdicts.
IGNORE: Final = -1  # a frame that was under way when the stream ended
CLOSED_STREAM_ERROR: Final = -2  # STREAM_CLOSED, for this stream
CLOSED_ERROR: Final = -3  # STREAM_CLOSED, for the connection
IDLE_ERROR: Final = -4  # PROTOCOL_ERROR, for the connection
MISUSE: Final = -5  # our own side may not send this now

STREAM: Final[tuple[tuple[int, ...], ...]] = (
    # HEADERS, DATA, END_STREAM, RST_STREAM, WINDOW_UPDATE received; HEADERS, DATA, END_STREAM, RST_STREAM sent
    # IDLE
    (OPEN, IDLE_ERROR, IDLE_ERROR, IDLE_ERROR, IDLE_ERROR, OPEN, MISUSE, MISUSE, MISUSE),
    # OPEN
    (OPEN, OPEN, HALF_CLOSED_REMOTE, RESET_BY_PEER, OPEN, OPEN, OPEN, HALF_CLOSED_LOCAL, RESET_BY_US),
    # HALF_CLOSED_LOCAL
    (HALF_CLOSED_LOCAL, HALF_CLOSED_LOCAL, CLOSED, RESET_BY_PEER, HALF_CLOSED_LOCAL, MISUSE, MISUSE, MISUSE,
     RESET_BY_US),
    # HALF_CLOSED_REMOTE
    (CLOSED_STREAM_ERROR, CLOSED_STREAM_ERROR, CLOSED_STREAM_ERROR, RESET_BY_PEER, HALF_CLOSED_REMOTE,
     HALF_CLOSED_REMOTE, HALF_CLOSED_REMOTE, CLOSED, RESET_BY_US),
    # CLOSED
    (CLOSED_ERROR, CLOSED_ERROR, CLOSED_ERROR, IGNORE, IGNORE, MISUSE, MISUSE, MISUSE, IGNORE),
    # RESET_BY_US
    (IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE),
    # RESET_BY_PEER
    (CLOSED_STREAM_ERROR, CLOSED_STREAM_ERROR, CLOSED_STREAM_ERROR, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE),
)  # fmt: skip

# States of connections, as to what the peer may send.
READY: Final = 0
AWAIT_PREFACE: Final = 1
AWAIT_SETTINGS: Final = 2
IN_BLOCK: Final = 3  # a header block has begun, and only its CONTINUATION may follow
DEAD: Final = 4

_UNEXPECTED: Final = -1

_ANY: Final = {DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE}
_EXTENSIONS: Final = 10  # this and all above it are types that we do not know

CONNECTION: Final[tuple[tuple[int, ...], ...]] = tuple(
    tuple(after if kind in kinds else _UNEXPECTED for kind in range(_EXTENSIONS + 1))
    for kinds, after in (
        (_ANY | {_EXTENSIONS}, READY),  # READY
        (frozenset[int](), AWAIT_PREFACE),  # AWAIT_PREFACE: no frame at all
        ({SETTINGS}, READY),  # AWAIT_SETTINGS
        ({CONTINUATION}, IN_BLOCK),  # IN_BLOCK, until END_HEADERS
        (_ANY | {PUSH_PROMISE, CONTINUATION, _EXTENSIONS}, DEAD),  # DEAD: nothing is looked at any more
    )
)
"""What a frame's type leads to in each state; negative where it is a PROTOCOL_ERROR."""
