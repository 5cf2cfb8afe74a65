"""What is inside google.protobuf.Any and TypedStruct."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError, Message

from sidecar.config.extensions import TYPED_STRUCTS, UnknownType, message_class, type_name_of
from sidecar.config.problems import Problem
from sidecar.config.source import Source


def unpack(packed: Any) -> Message:
    """The message inside an Any, as its own class.

    A TypedStruct whose type URL names a known message becomes that message; any other TypedStruct is given back as it
    is, for filters that users write. Raises UnknownType, and ValueError when the payload does not fit its type.
    """
    type_name = type_name_of(packed.type_url)
    message = message_class(type_name)()
    try:
        message.ParseFromString(packed.value)
    except DecodeError:
        raise ValueError(f"does not hold a {type_name}") from None
    return from_typed_struct(message) if type_name in TYPED_STRUCTS else message


def from_typed_struct(typed_struct: Any) -> Message:
    """The message that a TypedStruct stands for, or the TypedStruct itself when its type is not one that is known.

    Raises ValueError when the fields do not fit the type.
    """
    try:
        message = message_class(type_name_of(typed_struct.type_url))()
    except UnknownType:
        return typed_struct
    from google.protobuf import json_format  # only for a TypedStruct

    problems: list[Problem] = []
    Source(json_format.MessageToDict(typed_struct.value), "").read(message, problems)
    if problems:
        reasons = "; ".join(f"{problem.path} {problem.problem}" for problem in problems)
        raise ValueError(f"does not hold a {message.DESCRIPTOR.full_name}: {reasons}")
    return message
