"""Protobuf messages as JSON, lazily and with secrets left out.

Source: the protobuf JSON mapping, with field names as in the .proto files; `udpa.annotations.sensitive` marks secrets,
and Envoy's rule for them: strings and bytes become `[redacted]`, all else that is in a sensitive field is dropped.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from udpa.annotations.sensitive_pb2 import sensitive

from sidecar.admin.field_mask import ALL, Mask
from sidecar.admin.json_text import Array, Object
from sidecar.config.extensions import TYPED_STRUCTS, UnknownType, message_class, type_name_of

REDACTED: Final = "[redacted]"
_REDACTED_BYTES: Final = b64encode(REDACTED.encode()).decode()
_DROPPED: Final = object()
_ANY: Final = "google.protobuf.Any"
_TEXTUAL: Final = frozenset(f"google.protobuf.{name}" for name in ("Duration", "Timestamp", "FieldMask"))
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_STRUCTS: Final = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue"))

_sensitive_of: dict[str, frozenset[str]] = {}


def message_value(message: Message, mask: Mask = ALL) -> Any:
    """What `json_text` writes for `message`; of its fields only those that `mask` names."""
    return _of_message(message, mask, False)


def any_members(type_name: str, message: Message, mask: Mask = ALL) -> Object:
    """The message as it looks inside an Any."""
    return Object(_with_type(f"type.googleapis.com/{type_name}", _members(message, mask, False)))


def _with_type(type_url: str, members: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    yield "@type", type_url
    yield from members


def _of_message(message: Any, mask: Mask, redact: bool) -> Any:
    name = message.DESCRIPTOR.full_name
    if not name.startswith("google.protobuf."):
        return Object(_members(message, mask, redact))
    if name == _ANY:
        return Object(_any(message, mask, redact))
    if name in _TEXTUAL:
        return _DROPPED if redact else message.ToJsonString()
    if name in _WRAPPERS:
        return _scalar(message.DESCRIPTOR.fields_by_name["value"], message.value, redact)
    if name in _STRUCTS:
        return _of_struct(message, None, redact)
    return Object(_members(message, mask, redact))


def _members(message: Message, mask: Mask, redact: bool) -> Iterator[tuple[str, Any]]:
    descriptor = message.DESCRIPTOR
    secrets = _sensitive_fields(descriptor)
    typed_struct = descriptor.full_name in TYPED_STRUCTS
    for field, value in message.ListFields():
        name = field.name
        if mask and name not in mask:
            continue
        hidden = redact or name in secrets
        made: Any
        if typed_struct and name == "value":
            made = _of_struct(value, _described(message.type_url), hidden)
        elif field.is_repeated:
            made = _of_map(field, value, hidden) if _is_map(field) else Array(_items(field, value, hidden))
        elif field.message_type is not None:
            made = _of_message(value, mask[name] if mask else ALL, hidden)
        else:
            made = _scalar(field, value, hidden)
        if made is not _DROPPED:
            yield name, made


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _of_map(field: FieldDescriptor, value: Any, redact: bool) -> Object:
    value_field = field.message_type.fields_by_name["value"]
    return Object(
        (str(key).lower() if isinstance(key, bool) else str(key), made)
        for key in sorted(value)
        if (made := _one(value_field, value[key], redact)) is not _DROPPED
    )


def _items(field: FieldDescriptor, values: Any, redact: bool) -> Iterator[Any]:
    for value in values:
        made = _one(field, value, redact)
        if made is not _DROPPED:
            yield made


def _one(field: FieldDescriptor, value: Any, redact: bool) -> Any:
    return _of_message(value, ALL, redact) if field.message_type is not None else _scalar(field, value, redact)


def _scalar(field: FieldDescriptor, value: Any, redact: bool) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _REDACTED_BYTES if redact else b64encode(value).decode()
        return REDACTED if redact else value
    if redact:
        return _DROPPED
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return str(value)
    return _shortest(value) if kind == FieldDescriptor.CPPTYPE_FLOAT else value


def _shortest(value: float) -> float:
    """The shortest decimal that is the same number in 32 bits."""
    packed = struct.pack("f", value)
    shorter = (float(f"{value:.{digits}g}") for digits in (6, 7, 8))
    return next((short for short in shorter if struct.pack("f", short) == packed), value)


def _any(packed: Any, mask: Mask, redact: bool) -> Iterator[tuple[str, Any]]:
    yield "@type", packed.type_url
    try:
        inner = message_class(type_name_of(packed.type_url)).FromString(packed.value)
    except (UnknownType, DecodeError):
        if not redact:
            yield "value", b64encode(packed.value).decode()
        return
    name = inner.DESCRIPTOR.full_name
    if name == _ANY or name in _TEXTUAL or name in _WRAPPERS or name in _STRUCTS:
        made = _of_message(inner, ALL, redact)
        if made is not _DROPPED:
            yield "value", made
    else:
        yield from _members(inner, mask, redact)


def _of_struct(message: Any, described: Descriptor | None, redact: bool) -> Any:
    """A Struct, ListValue or Value. `described` is the message whose fields it stands for, where that is known."""
    name = message.DESCRIPTOR.name
    if name == "Struct":
        return Object(_struct_members(message.fields, described, redact))
    if name == "ListValue":
        return Array(made for v in message.values if (made := _of_struct(v, described, redact)) is not _DROPPED)
    kind = message.WhichOneof("kind")
    if kind in ("struct_value", "list_value"):
        return _of_struct(getattr(message, kind), described, redact)
    if kind == "string_value" and redact:
        return REDACTED
    if redact:
        return _DROPPED
    return None if kind in (None, "null_value") else getattr(message, kind)


def _struct_members(fields: Any, described: Descriptor | None, redact: bool) -> Iterator[tuple[str, Any]]:
    if "@type" in fields:
        described = _described(fields["@type"].string_value)
    for key in sorted(fields):
        inner, hidden = None, redact
        if described is not None:
            field = described.fields_by_name.get(key) or described.fields_by_camelcase_name.get(key)
            if field is not None:
                inner = field.message_type
                hidden = redact or field.name in _sensitive_fields(described)
        made = _of_struct(fields[key], inner, hidden)
        if made is not _DROPPED:
            yield key, made


def _described(type_url: str) -> Descriptor | None:
    try:
        return message_class(type_name_of(type_url)).DESCRIPTOR
    except UnknownType:
        return None


def _sensitive_fields(descriptor: Descriptor) -> frozenset[str]:
    found = _sensitive_of.get(descriptor.full_name)
    if found is None:
        found = frozenset(field.name for field in descriptor.fields if field.GetOptions().Extensions[sensitive])
        _sensitive_of[descriptor.full_name] = found
    return found
