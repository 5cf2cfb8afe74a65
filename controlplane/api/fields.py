"""Small JSON bodies of our own routes: known fields alone, each of its type, and errors that name the field."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.body import as_object, decode_json, read_body
from controlplane.api.status import JSON, ApiError

_LARGEST: Final = 64 * 1024


async def read_fields(request: Request, *fields: str) -> dict[str, Any]:
    """The object in a body; no body is an empty one. Raises ApiError, 422 for a field that is none of these."""
    body = as_object(decode_json(await read_body(request, _LARGEST) or b"{}"))
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise ApiError(422, f"{unknown[0]}: is not a field that is known here: use {', '.join(fields)}")
    return body


def text_field(body: dict[str, Any], field: str, default: str | None = None) -> str:
    """A text that is not empty. Raises ApiError 422."""
    value = body.get(field, default)
    if not isinstance(value, str) or not value:
        raise ApiError(422, f"{field}: {'is required' if field not in body else 'must be a text that is not empty'}")
    return value


def lifetime_field(body: dict[str, Any], longest: float | None = None) -> float | None:
    """Seconds, at least one, None if it is not said. Raises ApiError 422."""
    value = body.get("lifetime")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or (longest and value > longest):
        most = f" to {longest:.0f}" if longest else ""
        raise ApiError(422, f"lifetime: must be a number of seconds from 1{most}, not {value!r}")
    return float(value)


def refuse_field(field: str, complaint: str) -> None:
    """Raises ApiError 422 if there is a complaint."""
    if complaint:
        raise ApiError(422, f"{field}: {complaint}")


def json_response(value: Any, code: int = 200) -> Response:
    """A value as JSON."""
    return Response(orjson.dumps(value), code, media_type=JSON)
