"""One ADS stream: reads what the proxy says, and sends what there is to say, each at its own pace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from controlplane.model.encoded import Encoded
from controlplane.model.proxy import Proxy
from controlplane.xds.conversation import Conversation, Say
from controlplane.xds.responses import delta_body, version_of, whole_body, with_nonce
from controlplane.xds.type_urls import SECRET, SHORT
from controlplane.xds.watch import Watch

if TYPE_CHECKING:
    from controlplane.xds.hub import Hub

log = logging.getLogger("controlplane.xds")


class Session:
    """What one stream has been told. There is one slot for each type: what changes while a proxy is busy is said once."""

    def __init__(
        self,
        hub: Hub,
        proxy: Proxy,
        node: Any,
        send: Callable[[bytes], Awaitable[None]],
        *,
        incremental: bool,
        confidential: bool,
    ) -> None:
        self.hub = hub
        self.proxy = proxy
        self.node = node
        self.incremental = incremental
        self.confidential = confidential
        self.conversation = Conversation(self, incremental=incremental)
        self.connected_at = hub.wall_clock()
        self.bytes_sent = 0
        self.pushes = 0
        self._send = send
        self._something = asyncio.Event()

    @property
    def watches(self) -> Mapping[str, Watch]:
        """Its subscriptions, by type URL."""
        return self.conversation.watches

    def resources(self, type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        """What the proxy gets now. Secrets go over authenticated connections only."""
        if type_url == SECRET and not self.confidential:
            return {}
        return self.hub.resources(self.proxy, type_url, names)

    def on_request(self, request: Any) -> None:
        """A request of the proxy, in the stream's dialect."""
        if self.incremental:
            self.conversation.on_delta_request(request)
        else:
            self.conversation.on_request(request)
        watch = self.conversation.watches[request.type_url]
        watch.names = self.hub.shared_names(watch.names)
        self._something.set()

    def changed(self, type_urls: Collection[str], narrowed: Callable[[str, Collection[str]], Collection[str]]) -> None:
        """The mesh is different now, and may be for these types of this proxy; ``narrowed`` says for which of some names."""
        for type_url in type_urls:
            watch = self.conversation.watches.get(type_url)
            if watch is None:
                continue
            if watch.wildcard:
                watch.changed(None)
            elif names := narrowed(type_url, watch.names):
                watch.changed(names)
        self._something.set()

    async def speak(self) -> None:
        """Say what there is to say, for as long as the stream lives."""
        clock = asyncio.get_running_loop().time
        while True:
            say, wake = self.conversation.next(clock())
            if say is not None:
                await self._say(say, clock())
                continue
            try:
                async with asyncio.timeout(None if wake == inf else max(wake - clock(), 0.001)):
                    await self._something.wait()
            except TimeoutError:
                pass
            self._something.clear()

    async def _say(self, say: Say, now: float) -> None:
        watch, update, nonce = say
        version, body = self.hub.body(self, watch.type_url, update)
        watch.on_sent(update, nonce, version, now)
        message = with_nonce(body, nonce)
        self.bytes_sent += len(message)
        self.pushes += 1
        log.debug("%s: %r: %d bytes", self.proxy.id, say, len(message))
        await self._send(message)
        self.hub.verdicts.told(self, self.proxy, watch.type_url)

    def encode(self, type_url: str, update: Any) -> tuple[str, bytes]:
        """Version and body of a response with these resources, in the stream's dialect."""
        version = version_of(update.resources.values())
        body = (delta_body if self.incremental else whole_body)(type_url, update, version, self.hub.identifier)
        return version, body

    def judged(self, type_url: str, errors: Mapping[str, str]) -> None:
        """See View."""
        short = SHORT.get(type_url, type_url)
        if errors:
            for error in dict.fromkeys(errors.values()):
                log.warning("%s refuses %s: %s", self.proxy.id, short, error)
        else:
            log.info("%s accepts %s again", self.proxy.id, short)
        self.hub.verdicts.judged(self, self.proxy, type_url, errors)

    def __repr__(self) -> str:
        return f"<Session {self.proxy.id} {'delta' if self.incremental else 'state of the world'}>"
