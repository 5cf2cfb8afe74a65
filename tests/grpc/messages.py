"""The messages of gRPC's interoperability test descriptions, from descriptors written here instead of a compiler's."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "grpc.testing"
_FILE = descriptor_pb2.FileDescriptorProto(name="interop.proto", package=_PACKAGE, syntax="proto3")
_TYPES = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}


def _describe(name: str, *fields: tuple[str, int, str]) -> None:
    """Add a message; a field's type is a scalar's or a message's name, with ``*`` behind it where it is repeated."""
    message = _FILE.message_type.add(name=name)
    for field_name, number, kind in fields:
        made = message.field.add(name=field_name, number=number)
        made.label = made.LABEL_REPEATED if kind.endswith("*") else made.LABEL_OPTIONAL
        kind = kind.rstrip("*")
        if kind in _TYPES:
            made.type = _TYPES[kind]
        else:
            made.type = made.TYPE_MESSAGE
            made.type_name = f".{_PACKAGE}.{kind}"


_describe("Empty")
_describe("BoolValue", ("value", 1, "bool"))
_describe("Payload", ("type", 1, "int32"), ("body", 2, "bytes"))
_describe("EchoStatus", ("code", 1, "int32"), ("message", 2, "string"))
_describe(
    "SimpleRequest",
    ("response_type", 1, "int32"), ("response_size", 2, "int32"), ("payload", 3, "Payload"),
    ("response_compressed", 6, "BoolValue"), ("response_status", 7, "EchoStatus"), ("expect_compressed", 8, "BoolValue"),
)  # fmt: skip
_describe("SimpleResponse", ("payload", 1, "Payload"))
_describe("StreamingInputCallRequest", ("payload", 1, "Payload"), ("expect_compressed", 2, "BoolValue"))
_describe("StreamingInputCallResponse", ("aggregated_payload_size", 1, "int32"))
_describe("ResponseParameters", ("size", 1, "int32"), ("interval_us", 2, "int32"), ("compressed", 3, "BoolValue"))
_describe(
    "StreamingOutputCallRequest",
    ("response_type", 1, "int32"), ("response_parameters", 2, "ResponseParameters*"), ("payload", 3, "Payload"),
    ("response_status", 7, "EchoStatus"),
)  # fmt: skip
_describe("StreamingOutputCallResponse", ("payload", 1, "Payload"))

_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_FILE)


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Empty = _class("Empty")
BoolValue = _class("BoolValue")
Payload = _class("Payload")
EchoStatus = _class("EchoStatus")
SimpleRequest = _class("SimpleRequest")
SimpleResponse = _class("SimpleResponse")
StreamingInputCallRequest = _class("StreamingInputCallRequest")
StreamingInputCallResponse = _class("StreamingInputCallResponse")
ResponseParameters = _class("ResponseParameters")
StreamingOutputCallRequest = _class("StreamingOutputCallRequest")
StreamingOutputCallResponse = _class("StreamingOutputCallResponse")


def payload(size: int) -> Any:
    """So many zero bytes, as the descriptions want them."""
    return Payload(body=bytes(size))
