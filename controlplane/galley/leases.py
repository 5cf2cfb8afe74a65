"""Leases of etcd: what is bound to one is gone when its owner is. https://etcd.io/docs/v3.4/learning/api/#lease-api"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.galley.etcd_client import EtcdClient, OutOfRange, Refused
from controlplane.model.store import Unavailable

_log = logging.getLogger(__name__)


class Lease:
    """A lease that is kept alive. ``ended`` is the task that keeps it: it ends when the lease has ended, or may end before
    it can be kept alive again.
    """

    def __init__(self, identity: str, ended: asyncio.Task[None]) -> None:
        self.identity = identity
        self.ended = ended


@asynccontextmanager
async def leased(client: EtcdClient, seconds: int) -> AsyncIterator[Lease]:
    """A lease for as long as the context lasts; at its end it is given back at once. Raises Unavailable, Refused."""
    begun = asyncio.get_running_loop().time()
    identity = str((await client.call("lease/grant", {"TTL": str(seconds)}))["ID"])
    ended = asyncio.create_task(_keep(client, identity, seconds, begun + seconds))
    try:
        yield Lease(identity, ended)
    finally:
        ended.cancel()
        with contextlib.suppress(Unavailable, Refused, OutOfRange, TimeoutError):
            async with asyncio.timeout(1):
                await client.call("lease/revoke", {"ID": identity})


async def _keep(client: EtcdClient, identity: str, seconds: int, until: float) -> None:
    """``until`` is when the lease ends if nothing is heard any more, in the loop's time."""
    loop = asyncio.get_running_loop()
    margin = seconds / 10
    while True:
        await asyncio.sleep(seconds / 3)
        sent = loop.time()
        try:
            async with asyncio.timeout_at(until - margin):
                answer = await client.call("lease/keepalive", {"ID": identity})
        except TimeoutError:
            return
        except (Unavailable, Refused) as error:
            _log.info("lease: %s", error)
            if loop.time() >= until - margin:
                return
            continue
        if not int(answer.get("result", {}).get("TTL", 0)):
            return
        until = sent + seconds
