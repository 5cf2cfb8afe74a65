"""The authority over REST: operators rotate its root and see how far that is; they revoke certificates and identities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from controlplane.api.access import Rule
from controlplane.api.fields import json_response, read_fields, text_field
from controlplane.api.status import ApiError
from controlplane.model.authority_operations import AuthorityOperations, NotNow
from controlplane.model.certificates import CannotIssue, InvalidRequest

AUTHORITY: Final = "/mizzen/v1/authority"
ROTATION: Final = AUTHORITY + "/rotation"
DENIED: Final = "/mizzen/v1/certificates/revoked"
RULES: Final = (Rule(AUTHORITY), Rule(DENIED))


class AuthorityRoutes:
    """`/mizzen/v1/authority`, and `/mizzen/v1/certificates/revoked`."""

    def __init__(self, operations: AuthorityOperations) -> None:
        self._operations = operations

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(AUTHORITY, self._status, methods=["GET"]),
            Route(ROTATION, self._rotate, methods=["POST"]),
            Route(ROTATION, self._abort, methods=["DELETE"]),
            Route(ROTATION + "/advance", self._advance, methods=["POST"]),
            Route(DENIED, self._denied, methods=["GET"]),
            Route(DENIED, self._revoke, methods=["POST"]),
            Route(DENIED + "/restore", self._restore, methods=["POST"]),
        )

    async def _status(self, request: Request) -> Response:
        return json_response(dict(await self._operations.status()))

    async def _rotate(self, request: Request) -> Response:
        """Body: `keyType` ("ecdsa", "rsa"), and `timeout` in seconds after which the new root signs in any case."""
        body = await read_fields(request, "keyType", "timeout")
        timeout = body.get("timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0):
            raise ApiError(422, "timeout: must be a number of seconds")
        with _refusals():
            await self._operations.rotate(
                key_type=text_field(body, "keyType", "ecdsa"),
                timeout=None if timeout is None else float(timeout),
                who=request.state.identity.name,
            )
        return json_response(dict(await self._operations.status()), 201)

    async def _abort(self, request: Request) -> Response:
        with _refusals():
            await self._operations.abort(who=request.state.identity.name)
        return Response(status_code=204)

    async def _advance(self, request: Request) -> Response:
        """Body: the `gate` that is passed though it is not time: who asks has seen that the rotation is at this one."""
        body = await read_fields(request, "gate")
        gate = body.get("gate")
        if not isinstance(gate, int) or isinstance(gate, bool):
            raise ApiError(422, "gate: must be 1, 2 or 3")
        with _refusals():
            await self._operations.advance(gate=gate, who=request.state.identity.name)
        return json_response(dict(await self._operations.status()))

    async def _denied(self, request: Request) -> Response:
        return json_response(dict(self._operations.denied()))

    async def _revoke(self, request: Request) -> Response:
        """Body: `serial` or `identity`, and `reason`."""
        body = await read_fields(request, "serial", "identity", "reason")
        serial, identity = _which(body)
        with _refusals():
            found = await self._operations.revoke(
                serial=serial,
                identity=identity,
                reason=text_field(body, "reason", "unspecified"),
                who=request.state.identity.name,
            )
        return json_response(dict(found), 201)

    async def _restore(self, request: Request) -> Response:
        """Body: `serial` or `identity`."""
        serial, identity = _which(await read_fields(request, "serial", "identity"))
        with _refusals():
            await self._operations.restore(serial=serial, identity=identity, who=request.state.identity.name)
        return Response(status_code=204)


def _which(body: dict[str, Any]) -> tuple[str, str]:
    if ("serial" in body) == ("identity" in body):
        raise ApiError(422, "serial, identity: one of them says what is meant")
    return (text_field(body, "serial"), "") if "serial" in body else ("", text_field(body, "identity"))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NotNow as error:
        raise ApiError(409, str(error)) from None
    except InvalidRequest as error:
        raise ApiError(422, f"{error.field}: {error}") from None
    except CannotIssue as error:
        raise ApiError(503, str(error), headers={"Retry-After": "10"}) from None
