"""gRPC's message framing: a flag, a length of four octets and the message, over and over.

Source: "gRPC over HTTP/2", *Length-Prefixed-Message*. Nothing here reads a clock, does I/O or knows of headers.
"""

from __future__ import annotations

from typing import Final

PREFIX_SIZE: Final = 5
MAXIMUM_MESSAGE_SIZE: Final = 4 * 1024 * 1024
"""The largest message that a gRPC client takes unless it is told otherwise, in bytes."""

_COMPRESSED: Final = 1


class FramingError(Exception):
    """What arrived is no gRPC message, or one that is too large; the text says which."""


def frame(message: bytes, compressed: bool = False) -> bytes:
    """``message`` as it goes over the wire. Raises OverflowError for one of 4 GiB or more."""
    return (b"\x01" if compressed else b"\x00") + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Cuts a body into its messages. ``maximum``: the size in bytes of the largest message that is taken.

    A message is put together once, when its last piece arrives; a length that is too large is refused when its prefix is
    read, before any of the message is kept.
    """

    __slots__ = ("_compressed", "_missing", "_pieces", "_prefix", "maximum")

    def __init__(self, maximum: int = MAXIMUM_MESSAGE_SIZE) -> None:
        self.maximum = maximum
        self._prefix = b""  # of the next message, as far as it has arrived
        self._pieces: list[bytes] = []
        self._missing = -1  # octets that the message still lacks, -1 while its prefix is incomplete
        self._compressed = False

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended: a body may not end here."""
        return self._missing >= 0 or bool(self._prefix)

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """The messages that ``data`` completes, each with whether it is compressed.

        Raises FramingError for a flag that gRPC does not know and for a message larger than ``maximum``; nothing may be
        fed after that.
        """
        messages: list[tuple[bool, bytes]] = []
        at, size = 0, len(data)
        while True:
            missing = self._missing
            if missing < 0:
                prefix = self._prefix
                taken = PREFIX_SIZE - len(prefix)
                if size - at < taken:
                    self._prefix = prefix + data[at:]
                    return messages
                prefix += data[at : at + taken]
                at += taken
                self._prefix = b""
                self._missing = missing = self._begin(prefix)
            if size - at < missing:
                if at < size:
                    self._pieces.append(data[at:])
                    self._missing = missing - (size - at)
                return messages
            piece = data[at : at + missing]
            at += missing
            self._missing = -1
            if self._pieces:
                self._pieces.append(piece)
                piece = b"".join(self._pieces)
                self._pieces = []
            messages.append((self._compressed, piece))

    def _begin(self, prefix: bytes) -> int:
        """The length of the message behind ``prefix``."""
        flag = prefix[0]
        if flag > _COMPRESSED:
            raise FramingError(f"a gRPC message begins with flag {flag}, which is neither 0 nor 1")
        length = int.from_bytes(prefix[1:], "big")
        if length > self.maximum:
            raise FramingError(f"a gRPC message of {length} bytes is larger than the {self.maximum} that are taken")
        self._compressed = flag == _COMPRESSED
        return length


class MessageCounter:
    """Counts the messages that pass, from their prefixes alone: nothing of a message is copied or kept.

    A message counts with its first octet, as Envoy's frame inspector counts.
    """

    __slots__ = ("_prefix", "_skip", "count")

    def __init__(self) -> None:
        self.count = 0
        self._prefix = b""
        self._skip = 0  # octets of the current message that are still to come

    @property
    def complete(self) -> bool:
        """Whether the last message has ended, or none has begun."""
        return not self._skip and not self._prefix

    def feed(self, data: bytes) -> int:
        """How many messages begin in ``data``."""
        begun = 0
        size = len(data)
        at = self._skip
        while at < size:
            prefix = self._prefix
            if not prefix:
                begun += 1
            taken = PREFIX_SIZE - len(prefix)
            if size - at < taken:
                self._prefix = prefix + data[at:]
                at = size
                break
            length = data[at + 1 : at + PREFIX_SIZE] if not prefix else (prefix + data[at : at + taken])[1:]
            at += taken + int.from_bytes(length, "big")
            self._prefix = b""
        self._skip = at - size
        self.count += begun
        return begun
