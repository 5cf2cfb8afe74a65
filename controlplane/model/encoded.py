"""An Envoy resource as it goes over the wire: made once, shared by all proxies that get the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xxhash


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One resource of xDS: its name, its version (a hash of its content), the bytes of the message.

    Compared by identity: the generator gives the same object as long as nothing changed.
    """

    name: str
    version: str
    value: bytes

    def __repr__(self) -> str:
        return f"<Encoded {self.name} {self.version} {len(self.value)} bytes>"


def encode(name: str, message: Any) -> Encoded:
    """The resource of that name with a protobuf message for its content."""
    value = message.SerializeToString(deterministic=True)
    return Encoded(name, xxhash.xxh3_64_hexdigest(value), value)
