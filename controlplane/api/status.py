"""What the API says when it does not do as asked: Kubernetes' Status objects, with the HTTP code and the reason of each.

Source: the API conventions of Kubernetes, "Response Status Kind".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from controlplane.model.causes import Cause
from controlplane.model.kinds import Kind

JSON = "application/json"

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """Ends a request with a Status. ``causes`` are of fields: (reason, message, path); ``details`` name the resource."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        causes: Sequence[tuple[str, str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or _REASONS.get(code, "")
        self.details = dict(details or {})
        self.causes = causes
        self.headers = dict(headers or {})

    def status(self) -> dict[str, Any]:
        """The Status object."""
        details = self.details
        if self.causes:
            details = {
                **details,
                "causes": [{"reason": reason, "message": text, "field": path} for reason, text, path in self.causes],
            }
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if details:
            status["details"] = details
        status["code"] = self.code
        return status

    def response(self) -> Response:
        """The answer."""
        return Response(orjson.dumps(self.status()), self.code, self.headers, JSON)


def details_of(kind: Kind, name: str, uid: str = "") -> dict[str, Any]:
    """Which resource a Status is about. Kubernetes says the plural where the field is called `kind`."""
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    if uid:
        details["uid"] = uid
    return details


def resource_name(kind: Kind) -> str:
    """The kind's qualified plural: "virtualservices.networking.istio.io"."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def not_found(kind: Kind, name: str) -> ApiError:
    """404 for a resource that is not there."""
    return ApiError(404, f'{resource_name(kind)} "{name}" not found', details=details_of(kind, name))


def already_exists(kind: Kind, name: str) -> ApiError:
    """409 for a create of what is there."""
    return ApiError(
        409, f'{resource_name(kind)} "{name}" already exists', reason="AlreadyExists", details=details_of(kind, name)
    )


def conflict(kind: Kind, name: str, message: str) -> ApiError:
    """409 for a change of another version than the writer has seen."""
    return ApiError(
        409,
        f'Operation cannot be fulfilled on {resource_name(kind)} "{name}": {message}',
        details=details_of(kind, name),
    )


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with a cause for each field at fault."""
    told = [str(cause) for cause in causes]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    qualified = f"{kind.name}.{kind.group}" if kind.group else kind.name
    return ApiError(
        422,
        f'{qualified} "{name}" is invalid: {text}',
        details={**details_of(kind, name), "kind": kind.name},
        causes=[(cause.reason.value, cause.message, cause.path) for cause in causes],
    )


def expired(message: str) -> ApiError:
    """410: what was asked for is older than what the store remembers."""
    return ApiError(410, message, reason="Expired")


def success(kind: Kind, name: str, uid: str = "") -> dict[str, Any]:
    """The Status of a deletion that is done."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details_of(kind, name, uid),
    }
