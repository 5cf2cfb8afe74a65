"""What authorization services are asked, as fields that compare: ports, ids and times say nothing."""

from __future__ import annotations

from collections.abc import Callable

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from google.protobuf.json_format import MessageToDict

PATH = "/envoy.service.auth.v3.Authorization/Check"
_PREFIX_SIZE = 5


def check_request(body: bytes, comparable: Callable[[object], object]) -> object:
    """The ``CheckRequest`` in a gRPC message, with ``comparable`` applied to every value in it."""
    message = CheckRequest.FromString(body[_PREFIX_SIZE:])
    asked = MessageToDict(message, preserving_proto_field_name=True)
    request = asked["attributes"].get("request", {})
    if "time" in request:
        request["time"] = "<time>"
    if "id" in request.get("http", {}):
        request["http"]["id"] = "<id>" if request["http"]["id"].isdigit() else request["http"]["id"]
    for header in request.get("http", {}).get("header_map", {}).get("headers", ()):
        if header["key"] == "x-request-id":
            header["raw_value"] = "<uuid>"
    if "header_map" in request.get("http", {}):
        request["http"]["header_map"]["headers"].sort(key=lambda header: (header["key"], header.get("raw_value", "")))
    return _each(asked, comparable)


def _each(value: object, comparable: Callable[[object], object]) -> object:
    if isinstance(value, dict):
        return {
            key: "<port>" if key == "port_value" and comparable(one) == one else _each(one, comparable)
            for key, one in value.items()
        }
    return [_each(one, comparable) for one in value] if isinstance(value, list) else comparable(value)
