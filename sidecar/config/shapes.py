"""What a message looks like to whoever fills it from YAML: its keys, and for each the kind of value that belongs there.

Compiled once for each message type, and only for the types that a configuration uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from sidecar.config.json_mapping import ScalarReader, map_key_reader, scalar_reader


class Kind(IntEnum):
    """What stands behind a key."""

    SCALAR = 0
    MESSAGE = 1
    MESSAGES = 2
    SCALARS = 3
    MESSAGE_MAP = 4
    SCALAR_MAP = 5


def _no_scalar(text: str, plain: bool) -> Any:
    raise TypeError("a message is not read from a scalar")


class Entry:
    """One field of a message. `rivals` are the bits of the fields that share its oneof."""

    __slots__ = ("_message_type", "_shape", "bit", "kind", "name", "oneof", "read", "read_key", "rivals")

    def __init__(self, field: Any, position: int) -> None:
        self.name: str = field.name
        self.bit = 1 << position
        self.oneof: str | None = None
        self.rivals = 0
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            self.oneof = ", ".join(other.name for other in oneof.fields)
            siblings = {other.name for other in oneof.fields} - {field.name}
            for index, other in enumerate(field.containing_type.fields):
                self.rivals |= (1 << index) * (other.name in siblings)
        value = field
        self.read_key: ScalarReader = _no_scalar
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            value = field.message_type.fields_by_name["value"]
            self.read_key = map_key_reader(field.message_type.fields_by_name["key"])
        self._message_type = value.message_type
        self._shape: Shape | None = None
        self.read: ScalarReader = _no_scalar
        if value.message_type is None:
            self.read = scalar_reader(value)
            self.kind = Kind.SCALAR_MAP if is_map else Kind.SCALARS if field.is_repeated else Kind.SCALAR
        else:
            self.kind = Kind.MESSAGE_MAP if is_map else Kind.MESSAGES if field.is_repeated else Kind.MESSAGE

    @property
    def shape(self) -> Shape:
        """The shape of the message that stands behind the key (of each, for lists and maps)."""
        if self._shape is None:
            self._shape = shape_of(self._message_type)
        return self._shape


class Shape:
    """A message type: its entries by every spelling of their keys (`connect_timeout`, `connectTimeout`)."""

    __slots__ = ("entries", "full_name", "names")

    def __init__(self, descriptor: Any) -> None:
        self.full_name: str = descriptor.full_name
        self.entries: dict[str, Entry] = {}
        for position, field in enumerate(descriptor.fields):
            entry = Entry(field, position)
            self.entries[field.name] = self.entries[field.json_name] = entry
        self.names: Iterable[str] = tuple(field.name for field in descriptor.fields)


_shapes: dict[str, Shape] = {}


def shape_of(descriptor: Any) -> Shape:
    """The shape of a message type, made when first asked for."""
    shape = _shapes.get(descriptor.full_name)
    if shape is None:
        shape = _shapes[descriptor.full_name] = Shape(descriptor)
    return shape
