"""What grpclib does not do by itself for those who serve calls: bounds on requests, and who the peer is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

PATIENCE: Final = 15.0
"""Seconds for somebody to say what they want."""

MAX_REQUEST: Final = 4 << 20  # bytes of one request: names and versions of all that a proxy has


def certificate_of(stream: Stream[Any, Any]) -> bytes | None:
    """The certificate that the client has shown, DER; grpclib itself tells but what it has found in it."""
    peer = stream.peer
    tls = None if peer is None else peer._transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)


def source_of(stream: Stream[Any, Any]) -> str:
    """The address of the client, HOST:PORT; empty if it is not known."""
    address = None if stream.peer is None else stream.peer.addr()
    return "" if not address or not isinstance(address, tuple) else f"{address[0]}:{address[1]}"


def bearer_of(metadata: Mapping[str, Any]) -> str | None:
    """The bearer token of a call, None if there is none."""
    value = metadata.get("authorization", "")
    if not isinstance(value, str):
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def bound_requests(stream: Stream[Any, Any], most: int = MAX_REQUEST) -> None:
    """grpclib takes messages of any size: refuse what is too large before it is read."""
    below = stream._stream
    receive = below.recv_data

    async def bounded(size: int) -> bytes:
        if size > most:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {size} bytes; the limit is {most}")
        return await receive(size)

    below.recv_data = bounded  # type: ignore[method-assign]


async def first_request(stream: Stream[Any, Any], patience: float = PATIENCE) -> Any:
    """The first request of a stream; None if it ends without one. Raises GRPCError if nothing comes for ``patience`` seconds."""
    try:
        async with asyncio.timeout(patience):
            return await stream.recv_message()
    except TimeoutError as error:
        raise GRPCError(Status.DEADLINE_EXCEEDED, f"nothing was asked in {patience:g} s") from error
