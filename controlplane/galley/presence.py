"""Which control planes run: one alone, or all that have a key with a lease in one etcd."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from controlplane.galley.etcd_client import EtcdClient, OutOfRange, Refused, raw, text
from controlplane.galley.etcd_records import behind
from controlplane.galley.leases import leased
from controlplane.model.store import Unavailable

_log = logging.getLogger(__name__)


class Alone:
    """The presence of one that shares its store with nobody."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def alive(self) -> Collection[str]:
        return (self.identity,)


class EtcdPresence:
    """A key for each control plane; it is gone at most ``lease`` seconds after its owner."""

    def __init__(self, client: EtcdClient, identity: str, *, lease: int = 10) -> None:
        self.identity = identity
        self._client = client
        self._prefix = f"{client.url.prefix}/instances/".encode()
        self._lease = lease

    async def run(self) -> None:
        while True:
            try:
                async with leased(self._client, self._lease) as lease:
                    put = {"key": text(self._prefix + self.identity.encode()), "value": "", "lease": lease.identity}
                    await self._client.call("kv/put", put)
                    await lease.ended
            except (Unavailable, Refused, OutOfRange) as error:
                _log.warning("presence: %s", error)
            await asyncio.sleep(min(1.0, self._lease / 10))

    async def alive(self) -> Collection[str]:
        asked = {"key": text(self._prefix), "range_end": text(behind(self._prefix)), "keys_only": True}
        try:
            pairs = (await self._client.call("kv/range", asked)).get("kvs", ())
        except (Refused, OutOfRange) as error:
            raise Unavailable(f"the store {self._client.url} refuses: {error}") from None
        return {raw(pair["key"])[len(self._prefix) :].decode() for pair in pairs} | {self.identity}
