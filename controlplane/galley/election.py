"""The election of one among several control planes, by a key in etcd that lives as long as its lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from controlplane.galley.etcd_client import EtcdClient, OutOfRange, Refused, raw, text
from controlplane.galley.leases import leased
from controlplane.model.store import Unavailable

_log = logging.getLogger(__name__)


class AlwaysLeading:
    """The election of one who is alone: a control plane with a store of its own."""

    leading = True

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        await lead()
        await asyncio.Event().wait()


class EtcdElection:
    """An election that whoever has ``name`` in common takes part in.

    The leader steps down by its own clock before its lease ends, so that there are never two that keep to it; a successor
    comes when the lease has ended, at most ``lease`` seconds after a leader was killed, at once if it stepped down.
    """

    def __init__(self, client: EtcdClient, name: str, identity: str, *, lease: int = 10) -> None:
        self.leading = False
        self._client = client
        self._key = f"{client.url.prefix}/elections/{name}".encode()
        self._identity = identity
        self._lease = lease

    def __repr__(self) -> str:
        return f"<EtcdElection {self._key.decode()} {'led by' if self.leading else 'of'} {self._identity}>"

    async def leader(self) -> str | None:
        """The identity of who leads now."""
        pairs = (await self._client.call("kv/range", {"key": text(self._key)})).get("kvs")
        return raw(pairs[0]["value"]).decode(errors="replace") if pairs else None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await self._stand(lead)
            except (Unavailable, Refused, OutOfRange) as error:
                _log.warning("election: %s", error)
            await asyncio.sleep(min(1.0, self._lease / 10))

    async def _stand(self, lead: Callable[[], Awaitable[None]]) -> None:
        """One term, from the lease to its end."""
        async with leased(self._client, self._lease) as lease:
            while not await self._win(lease.identity):
                gone = asyncio.create_task(self._wait_for_end())
                done, _ = await asyncio.wait([gone, lease.ended], return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                for task in done:
                    task.result()
                if lease.ended in done:
                    return
            _log.info("election: %s leads now", self._identity)
            self.leading = True
            leading = asyncio.ensure_future(_run(lead))
            try:
                await asyncio.wait([lease.ended, leading], return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
                    await lease.ended
            finally:
                self.leading = False
                leading.cancel()
                await asyncio.wait([leading])
                _log.info("election: %s does not lead any more", self._identity)

    async def _win(self, lease: str) -> bool:
        key = text(self._key)
        answer = await self._client.call("kv/txn", {
            "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {"key": key, "value": text(self._identity.encode()), "lease": lease}}],
            "failure": [{"request_range": {"key": key}}],
        })  # fmt: skip
        if answer.get("succeeded"):
            return True
        pairs: list[dict[str, Any]] = answer["responses"][0]["response_range"].get("kvs", [])
        return bool(pairs) and str(pairs[0].get("lease")) == lease  # the answer to an attempt before was lost

    async def _wait_for_end(self) -> None:
        """Return when the key may have gone."""
        answer = await self._client.call("kv/range", {"key": text(self._key)})
        if not answer.get("kvs"):
            return
        start = str(int(answer["header"]["revision"]) + 1)
        create = {"key": text(self._key), "start_revision": start}
        async with aclosing(self._client.stream("watch", {"create_request": create})) as answers:
            async for each in answers:
                if each.get("canceled") or any(event.get("type") == "DELETE" for event in each.get("events", ())):
                    return


async def _run(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()
