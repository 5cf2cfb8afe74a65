"""Huffman-coded strings of HPACK and what they say, for all connections of a worker."""

from __future__ import annotations

from typing import Final


class Texts(dict[bytes, bytes]):
    """Huffman-coded strings to the texts that they code, remembered: bounded in number and length, for all to share."""

    __slots__ = ("most",)

    LONGEST: Final = 128

    def __init__(self, most: int = 4096) -> None:
        super().__init__()
        self.most = most

    def __missing__(self, coded: bytes) -> bytes:
        from sidecar.codec.hpack_huffman import decode  # with the first HTTP/2 connection

        text = decode(coded)
        if len(coded) <= self.LONGEST:
            if len(self) >= self.most:
                self.clear()
            self[coded] = text
        return text
