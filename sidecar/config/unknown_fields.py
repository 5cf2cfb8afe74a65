"""Fields of serialised messages that their types have not: known by their numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from sidecar.config.problems import key_label


def unknown_fields(message: Any, path: str = "") -> Iterator[tuple[str, int, str]]:
    """For each such field: the path of the message that has it, the field's number, the message's full name.

    What is inside of google.protobuf.Any is not looked into.
    """
    for field in UnknownFieldSet(message):
        yield path, field.field_number, message.DESCRIPTOR.full_name
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        place = f"{path}.{descriptor.name}".removeprefix(".")
        if not descriptor.is_repeated:
            yield from unknown_fields(value, place)
        elif not descriptor.message_type.GetOptions().map_entry:
            for index, item in enumerate(value):
                yield from unknown_fields(item, f"{place}[{index}]")
        elif descriptor.message_type.fields_by_name["value"].message_type is not None:
            for key, item in sorted(value.items()):
                yield from unknown_fields(item, f"{place}{key_label(key)}")
