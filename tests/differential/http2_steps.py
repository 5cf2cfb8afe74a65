"""The steps that only HTTP/2 has: what a client waits for, and what an upstream sends on a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FieldLines = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AwaitStream:
    """Wait until the stream has ended or been reset."""

    stream: int
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitHead:
    """Wait until the stream has brought this many heads, informational ones included."""

    stream: int
    heads: int = 1
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitData:
    """Wait until the stream has brought this many octets."""

    stream: int
    octets: int
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitSettled:
    """Wait until the proxy has acknowledged the client's SETTINGS."""

    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitPong:
    """Wait until the proxy has answered this many PINGs."""

    count: int = 1
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitGoaway:
    """Wait until the proxy has sent GOAWAY."""

    connection: int = 0


ClientStep = AwaitStream | AwaitHead | AwaitData | AwaitSettled | AwaitPong | AwaitGoaway


@dataclass(frozen=True, slots=True)
class Head:
    """The upstream sends HEADERS: ``:status`` is one of the fields. Trailers are a Head that ends the stream."""

    fields: FieldLines
    end: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The upstream sends DATA, as far as the proxy's windows allow; ``{upstream}`` stands for the upstream's name."""

    data: bytes
    end: bool = False


@dataclass(frozen=True, slots=True)
class ResetStream:
    """The upstream sends RST_STREAM."""

    code: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The upstream sends GOAWAY. ``last`` counts from this stream: -2 leaves it out, 0 is this one."""

    code: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class RawFrame:
    """The upstream sends any frame, by default on this stream."""

    kind: int
    flags: int
    payload: bytes
    stream: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """The upstream opens the stream's window by so many octets."""

    octets: int


@dataclass(frozen=True, slots=True)
class Announce:
    """The upstream sends SETTINGS in the course of a connection."""

    settings: Sequence[tuple[int, int]]


StreamStep = Head | Body | ResetStream | GoAway | RawFrame | Grant | Announce
