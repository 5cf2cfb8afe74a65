"""The bootstrap as it was given, kept small until somebody asks for it."""

from __future__ import annotations

import zlib
from typing import Any


class CompressedBootstrap:
    """A serialised `envoy.config.bootstrap.v3.Bootstrap`, compressed: a thousand clusters need some 30 KB.

    Protobuf is imported, and the message parsed, only by `parse`.
    """

    __slots__ = ("_compressed",)

    def __init__(self, serialized: bytes) -> None:
        self._compressed = zlib.compress(serialized, 6)

    def parse(self) -> Any:
        """A new Bootstrap message."""
        from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap

        return Bootstrap.FromString(zlib.decompress(self._compressed))

    def __repr__(self) -> str:
        return f"<CompressedBootstrap {len(self._compressed)} bytes>"
