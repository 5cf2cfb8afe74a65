"""Merging a part of Envoy's configuration into a message, as EnvoyFilter's MERGE means it.

Protobuf's own merge is nearly that. But a duration, a wrapped value or a packed message is one value: to merge it field by field
would leave "3.5s" of 3s and 500ms.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, message_factory, symbol_database
from google.protobuf.descriptor import FieldDescriptor

from controlplane.model.istio.envoy_values import know_type

_WHOLE = "google.protobuf."  # durations, timestamps, wrappers: replaced as they are
_STRUCT = "google.protobuf.Struct"
_ANY = "google.protobuf.Any"


def merge(into: Any, patch: Any) -> None:
    """Merge ``patch`` into a message of the same type: fields replace, repeated ones are appended to, maps are updated."""
    for field, value in patch.ListFields():
        if field.is_repeated:
            _merge_repeated(into, field, value)
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(into, field.name, value)
        else:
            _merge_message(getattr(into, field.name), value)


def unpacked(packed: Any) -> Any:
    """The message in an `Any`; None if its type is not known."""
    name = packed.type_url.rpartition("/")[2]
    if not know_type(packed.type_url):
        return None
    found = message_factory.GetMessageClass(symbol_database.Default().pool.FindMessageTypeByName(name))()
    found.ParseFromString(packed.value)
    return found


def _merge_message(into: Any, patch: Any) -> None:
    name = patch.DESCRIPTOR.full_name
    if name == _ANY and into.type_url == patch.type_url:
        _merge_any(into, patch)
    elif name.startswith(_WHOLE) and name != _STRUCT:
        into.CopyFrom(patch)
    else:
        into.SetInParent()
        merge(into, patch)


def _merge_any(into: any_pb2.Any, patch: any_pb2.Any) -> None:
    inner, change = unpacked(into), unpacked(patch)
    if inner is None or change is None:
        into.CopyFrom(patch)
        return
    merge(inner, change)
    into.value = inner.SerializeToString(deterministic=True)


def _merge_repeated(into: Any, field: FieldDescriptor, value: Any) -> None:
    target = getattr(into, field.name)
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        target.extend(value)
        return
    messages = entry.fields_by_name["value"].message_type is not None
    for key in value:
        if messages:
            _merge_message(target[key], value[key])
        else:
            target[key] = value[key]
