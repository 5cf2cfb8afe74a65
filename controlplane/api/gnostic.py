"""An OpenAPI v2 document as a gnostic protobuf, the one form in which kubectl before 1.28 takes it.

Source: gnostic's `OpenAPIv2.proto` (the messages' fields and their numbers), the Protocol Buffers encoding. There are no
generated classes here: a writer of nine messages is smaller than they, and it makes nothing that is only read once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

ACCEPTED = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
"""What clients ask for: the first by all that there are, though its `@` makes it no media type (RFC 9110 section 8.3.1)."""

MEDIA_TYPE = ACCEPTED[1]

_OPERATIONS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_IN_QUERY, _IN_PATH = 3, 4  # members of NonBodyParameter


def encode_document(document: Mapping[str, Any]) -> bytes:
    """The message `openapi.v2.Document`."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = _named(2, ((path, _path_item(item)) for path, item in document["paths"].items()))
    schemas = _named(1, ((name, _schema(one)) for name, one in document["definitions"].items()))
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, paths) + _bytes(9, schemas)


def _schema(schema: Mapping[str, Any]) -> bytes:
    if "$ref" in schema:
        return _text(1, schema["$ref"])
    parts = [_text(2, schema.get("format", "")), _text(4, schema.get("description", ""))]
    for number, name in ((7, "maximum"), (9, "minimum")):
        if name in schema:
            parts.append(_tag(number, 1) + struct.pack("<d", schema[name]))
    parts.extend(_text(19, name) for name in schema.get("required", ()))
    parts.extend(_bytes(20, _any(value)) for value in schema.get("enum", ()))
    if "additionalProperties" in schema:
        parts.append(_bytes(21, _bytes(1, _schema(schema["additionalProperties"]))))
    if "type" in schema:
        parts.append(_bytes(22, _text(1, schema["type"])))
    if "items" in schema:
        parts.append(_bytes(23, _bytes(1, _schema(schema["items"]))))
    if "properties" in schema:
        parts.append(_bytes(25, _named(1, ((name, _schema(one)) for name, one in schema["properties"].items()))))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _path_item(item: Mapping[str, Any]) -> bytes:
    operations = b"".join(_bytes(_OPERATIONS[verb], _operation(item[verb])) for verb in _OPERATIONS if verb in item)
    return operations + b"".join(_bytes(9, _parameter(parameter)) for parameter in item.get("parameters", ()))


def _operation(operation: Mapping[str, Any]) -> bytes:
    responses = _named(
        1, ((code, _bytes(1, _text(1, response["description"]))) for code, response in operation["responses"].items())
    )
    return b"".join(
        [
            _text(5, operation["operationId"]),
            *(_text(7, media_type) for media_type in operation.get("consumes", ())),
            *(_bytes(8, _parameter(parameter)) for parameter in operation["parameters"]),
            _bytes(9, responses),
            _extensions(13, operation),
        ]
    )


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    """ParametersItem, of Parameter, of NonBodyParameter."""
    required = _tag(1, 0) + b"\1" if parameter.get("required") else b""
    described = (
        required + _text(2, parameter["in"]) + _text(3, parameter.get("description", "")) + _text(4, parameter["name"])
    )
    if parameter["in"] == "query":
        member = _bytes(_IN_QUERY, described + _text(6, parameter["type"]))
    else:
        member = _bytes(_IN_PATH, described + _text(5, parameter["type"]))
    return _bytes(1, _bytes(2, member))


def _extensions(number: int, described: Mapping[str, Any]) -> bytes:
    return _named(number, ((name, _any(value)) for name, value in described.items() if name.startswith("x-")))


def _any(value: Any) -> bytes:
    return _text(2, json.dumps(value))  # JSON is YAML


def _named(number: int, members: Iterable[tuple[str, bytes]]) -> bytes:
    """Maps are repeated pairs of a name and a value."""
    return b"".join(_bytes(number, _text(1, name) + _bytes(2, value)) for name, value in members)


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode()) if text else b""


def _bytes(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
