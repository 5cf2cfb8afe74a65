"""Kubernetes' own kinds as protobuf, in which kubectl since 1.32 sends what `kubectl create KIND` makes.

Source: `generated.proto` of k8s.io/api/core/v1 and of k8s.io/apimachinery (runtime.Unknown, ObjectMeta, IntOrString): the fields
and their numbers. Tables, because the four kinds that kubectl makes are a few of a thousand messages there.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Decoder = Callable[[Any], Any]


class InvalidProtobuf(Exception):
    """What is wrong."""


def parse_protobuf(body: bytes) -> dict[str, Any]:
    """The resource in a body, as JSON would have it. Raises InvalidProtobuf, also for kinds and fields that are not read."""
    if not body.startswith(_MAGIC):
        raise InvalidProtobuf("it does not begin as Kubernetes' protobuf does")
    envelope = _message(body[len(_MAGIC) :], _ENVELOPE, "runtime.Unknown")
    about = envelope.get("typeMeta", {})
    kind, version = about.get("kind", ""), about.get("apiVersion", "")
    fields = _KINDS.get(kind) if version == "v1" else None
    if fields is None:
        raise InvalidProtobuf(f"{kind or 'the kind'} of {version or 'no version'} is not read as protobuf: send JSON")
    return {"apiVersion": version, "kind": kind, **_message(envelope.get("raw", b""), fields, kind)}


class _Field:
    """A field of a message: its name in JSON, and how its value is read."""

    def __init__(
        self, name: str, decode: Decoder, wire_type: int = _BYTES, *, repeated: bool = False, map: bool = False
    ) -> None:
        self.name = name
        self.decode = decode
        self.wire_type = wire_type
        self.repeated = repeated
        self.map = map


def _message(body: bytes, fields: Mapping[int, _Field], what: str) -> dict[str, Any]:
    """A message; what is empty, zero or false in it is left out, as JSON does."""
    found: dict[str, Any] = {}
    for number, wire_type, value in _wire(body):
        field = fields.get(number)
        if field is None or field.wire_type != wire_type:
            raise InvalidProtobuf(f"field {number} of {what} is not read as protobuf: send JSON")
        decoded = field.decode(value)
        if field.map:
            found.setdefault(field.name, {}).update(decoded)
        elif field.repeated:
            found.setdefault(field.name, []).append(decoded)
        elif decoded not in ("", 0, {}, None, b""):
            found[field.name] = decoded
    return found


def _wire(body: bytes) -> Iterator[tuple[int, int, Any]]:
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        number, wire_type = tag >> 3, tag & 7
        value: Any
        if wire_type == _VARINT:
            value, position = _varint(body, position)
        elif wire_type in (_BYTES, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(wire_type)
            if size is None:
                size, position = _varint(body, position)
            value, position = body[position : position + size], position + size
            if position > len(body):
                raise InvalidProtobuf("it is cut off")
        else:
            raise InvalidProtobuf(f"it has a field of wire type {wire_type}")
        yield number, wire_type, value


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(body):
            raise InvalidProtobuf("it is cut off")
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidProtobuf("it has a number of more than 64 bits")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidProtobuf("it has a text that is not UTF-8") from None


def _integer(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _ignored(value: Any) -> None:
    return None


def _of(fields: Mapping[int, _Field], what: str) -> Decoder:
    return lambda value: _message(value, fields, what)


def _int_or_string(value: bytes) -> int | str:
    told = _message(value, _INT_OR_STRING, "IntOrString")
    found: int | str = told.get("strVal", "") if told.get("type") else told.get("intVal", 0)
    return found


def _texts(name: str) -> _Field:
    return _Field(name, _text, repeated=True)


def _entries(name: str, decode: Decoder) -> _Field:
    def entry(value: bytes) -> dict[str, Any]:
        key, told = "", decode(b"")
        for number, wire_type, part in _wire(value):
            if wire_type != _BYTES or number not in (1, 2):
                raise InvalidProtobuf(f"an entry of {name} is none")
            if number == 1:
                key = _text(part)
            else:
                told = decode(part)
        return {key: told}

    return _Field(name, entry, map=True)


def _boolean(name: str) -> _Field:
    return _Field(name, bool, _VARINT)


def _number(name: str) -> _Field:
    return _Field(name, _integer, _VARINT)


_TYPE_META = {1: _Field("apiVersion", _text), 2: _Field("kind", _text)}
_ENVELOPE = {
    1: _Field("typeMeta", _of(_TYPE_META, "TypeMeta")),
    2: _Field("raw", bytes),
    3: _Field("contentEncoding", _text),
    4: _Field("contentType", _text),
}
_INT_OR_STRING = {1: _number("type"), 2: _number("intVal"), 3: _Field("strVal", _text)}
_METADATA = {
    1: _Field("name", _text),
    2: _Field("generateName", _text),
    3: _Field("namespace", _text),
    4: _Field("selfLink", _text),
    5: _Field("uid", _text),
    6: _Field("resourceVersion", _text),
    7: _number("generation"),
    8: _Field("creationTimestamp", _ignored),  # the server's to say
    11: _entries("labels", _text),
    12: _entries("annotations", _text),
    14: _texts("finalizers"),
    17: _Field("managedFields", _ignored),
}
_PORT = {
    1: _Field("name", _text),
    2: _Field("protocol", _text),
    3: _number("port"),
    4: _Field("targetPort", _int_or_string),
    5: _number("nodePort"),
    6: _Field("appProtocol", _text),
}
_SERVICE_SPEC = {
    1: _Field("ports", _of(_PORT, "ServicePort"), repeated=True),
    2: _entries("selector", _text),
    3: _Field("clusterIP", _text),
    4: _Field("type", _text),
    5: _texts("externalIPs"),
    7: _Field("sessionAffinity", _text),
    8: _Field("loadBalancerIP", _text),
    9: _texts("loadBalancerSourceRanges"),
    10: _Field("externalName", _text),
    11: _Field("externalTrafficPolicy", _text),
    12: _number("healthCheckNodePort"),
    13: _boolean("publishNotReadyAddresses"),
    17: _Field("ipFamilyPolicy", _text),
    18: _texts("clusterIPs"),
    19: _texts("ipFamilies"),
    20: _boolean("allocateLoadBalancerNodePorts"),
    21: _Field("loadBalancerClass", _text),
    22: _Field("internalTrafficPolicy", _text),
    23: _Field("trafficDistribution", _text),
}
_OBJECT_META = _Field("metadata", _of(_METADATA, "ObjectMeta"))
_KINDS: Mapping[str, Mapping[int, _Field]] = {
    "Namespace": {
        1: _OBJECT_META,
        2: _Field("spec", _of({1: _texts("finalizers")}, "NamespaceSpec")),
        3: _Field("status", _ignored),
    },
    "ConfigMap": {
        1: _OBJECT_META,
        2: _entries("data", _text),
        3: _entries("binaryData", _base64),
        4: _boolean("immutable"),
    },
    "Secret": {
        1: _OBJECT_META,
        2: _entries("data", _base64),
        3: _Field("type", _text),
        4: _entries("stringData", _text),
        5: _boolean("immutable"),
    },
    "Service": {
        1: _OBJECT_META,
        2: _Field("spec", _of(_SERVICE_SPEC, "ServiceSpec")),
        3: _Field("status", _ignored),
    },
}
