"""Bodies of requests: read up to a limit, decoded strictly, and no deeper or wider than a resource ever is."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from controlplane.api.protobuf_body import MEDIA_TYPE, InvalidProtobuf, parse_protobuf
from controlplane.api.status import ApiError
from controlplane.api.yaml_body import InvalidYaml, parse_yaml

LARGEST_BODY = 3 * 1024 * 1024
_DEEPEST = 100
_PATIENCE = 30.0  # seconds for a whole body
_MOST_VALUES = 500_000
_LARGEST_YAML = 256 * 1024  # which is slow to read, and JSON is there


async def read_body(request: Request, largest: int = LARGEST_BODY, patience: float | None = None) -> bytes:
    """The whole body. Raises ApiError 413 as soon as more than ``largest`` bytes are announced or come, 408 if they
    take too long, which is after ``patience`` seconds."""
    patience = _PATIENCE if patience is None else patience
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "compressed bodies are not accepted: send it as it is")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > largest:
        raise _too_large(largest)
    parts, size = [], 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    raise _too_large(largest)
                parts.append(part)
    except TimeoutError:
        raise ApiError(408, f"the body of the request did not come within {patience:.0f} seconds") from None
    return b"".join(parts)


async def read_document(request: Request) -> dict[str, Any]:
    """The JSON or YAML object in a body. Raises ApiError 400, 413, 415."""
    media_type = media_type_of(request) or "application/json"
    decode = DECODERS.get(media_type)
    if decode is None:
        raise unsupported_media_type(*DECODERS)
    return as_object(decode(await read_body(request)))


def media_type_of(request: Request) -> str:
    """The media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported_media_type(*accepted: str) -> ApiError:
    """415, naming what is accepted, in Kubernetes' words (clients look for them)."""
    return ApiError(
        415,
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}",
    )


def as_object(value: Any) -> dict[str, Any]:
    """A decoded body that must be an object."""
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be an object, not {_json_type(value)}")
    return value


def decode_json(body: bytes) -> Any:
    """JSON, strictly: no key twice, no NaN."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ApiError(400, f"the body is nested deeper than {_DEEPEST} levels") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from None
    _measure(value)
    return value


def decode_yaml(body: bytes) -> Any:
    """One YAML document, as JSON's types."""
    if len(body) > _LARGEST_YAML:
        raise ApiError(413, f"the body of the request is larger than {_LARGEST_YAML} bytes of YAML: send JSON")
    try:
        value = parse_yaml(body, _DEEPEST)
    except InvalidYaml as error:
        raise ApiError(400, f"the body is not valid YAML: {error}") from None
    _measure(value)
    return value


def decode_protobuf(body: bytes) -> Any:
    """Kubernetes' protobuf, as JSON's types."""
    try:
        value = parse_protobuf(body)
    except InvalidProtobuf as error:
        raise ApiError(415, f"the body cannot be taken as {MEDIA_TYPE}: {error}") from None
    _measure(value)
    return value


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "application/json": decode_json,
    "application/yaml": decode_yaml,
    "application/x-yaml": decode_yaml,
    "text/yaml": decode_yaml,
    MEDIA_TYPE: decode_protobuf,
}


def _too_large(largest: int) -> ApiError:
    return ApiError(413, f"the body of the request is larger than {largest} bytes")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" is there twice in one object')
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _measure(value: Any) -> None:
    """Refuse what is too deep, has too many values, or values that JSON cannot carry on, without recursion."""
    count, level = 0, [value]
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                deeper.extend(one.values())
                deeper.extend(one)
            elif isinstance(one, list):
                deeper.extend(one)
            else:
                _check_scalar(one)
        count += len(deeper)
        if count > _MOST_VALUES:
            raise ApiError(413, f"the body has more than {_MOST_VALUES} values")
        if not deeper:
            return
        level = deeper
    raise ApiError(400, f"the body is nested deeper than {_DEEPEST} levels")


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ApiError(400, "the body has half of a surrogate pair in a text, which is no character")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ApiError(400, "the body has a number that is larger than numbers can be")
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise ApiError(400, f"the body has a number of more than 64 bits: {value}")


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
