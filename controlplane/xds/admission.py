"""Who may be the proxy that a stream's node names, and for how long: shared by all streams that last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream

from controlplane.model.grpc_calls import certificate_of, source_of
from controlplane.model.proxy import Proxy

log = logging.getLogger("controlplane.xds")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A proxy as far as it is believed. ``revoked`` waits until that is over, and says why; None where it cannot be."""

    proxy: Proxy
    revoked: Callable[[], Awaitable[str]] | None = None


# Who may be this proxy; raises PermissionError with the reason. Called with the call's metadata, the peer's certificate (DER,
# None for who has shown none) and its address for the audit log.
Admit = Callable[[Proxy, Mapping[str, Any], bytes | None, str], Awaitable[Admitted]]


async def admission(stream: Stream[Any, Any], proxy: Proxy, admit: Admit | None) -> Admitted:
    """As whom the peer is served; without ``admit`` as who it says. Raises GRPCError for who is not believed."""
    if admit is None:
        return Admitted(proxy)
    try:
        return await admit(proxy, dict(stream.metadata or {}), certificate_of(stream), source_of(stream))
    except PermissionError as error:
        raise GRPCError(Status.PERMISSION_DENIED, str(error)) from error


async def while_admitted(admitted: Admitted, *work: Coroutine[Any, Any, None]) -> None:
    """Do all of ``work`` until one part is done or the peer is gone. Raises GRPCError when the proxy is believed no more."""
    tasks = [asyncio.create_task(one) for one in work]
    if admitted.revoked is not None:
        tasks.append(asyncio.create_task(_end(admitted.proxy, admitted.revoked)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(StreamTerminatedError, ConnectionError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end(proxy: Proxy, revoked: Callable[[], Awaitable[str]]) -> None:
    reason = await revoked()
    log.warning("a stream of %s is ended: %s", proxy.id, reason)
    raise GRPCError(Status.PERMISSION_DENIED, reason)
