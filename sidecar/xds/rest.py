"""Resources over REST: the server is asked again and again. Source: Envoy's ``HttpSubscriptionImpl``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from google.protobuf import json_format

from sidecar.config.config_source import ApiConfigSource
from sidecar.config.problems import ConfigurationError
from sidecar.config.source import Source
from sidecar.core.client import ClientOptions, Clients, RequestFailed
from sidecar.core.discovery import Rejection
from sidecar.core.head import RequestHead
from sidecar.core.pace import Pace
from sidecar.core.worker import Worker
from sidecar.xds.files import read_text
from sidecar.xds.interest import Interest
from sidecar.xds.last_good import Kept, LastGood
from sidecar.xds.responses import decode, without_doubles

log = logging.getLogger("sidecar.xds")

_MAX_RESPONSE: Final = 256 << 20
_JITTER: Final = 1.0
_OK: Final = 200
_NOT_MODIFIED: Final = 304


class RestSubscription:
    """Asks for one interest: at once, and again `refresh_delay` and up to a second after each answer."""

    def __init__(
        self,
        worker: Worker,
        clients: Clients,
        api: ApiConfigSource,
        path: bytes,
        node: Any,
        last_good: LastGood,
        interest: Interest,
        over: Callable[[RestSubscription], None],
    ) -> None:
        self.worker = worker
        self.pace = Pace(worker.clock)
        self.api = api
        self.path = path
        self.node = node
        self.last_good = last_good
        self.over = over
        self.version = ""
        self.accepted: dict[str, Kept] = {}
        self.client = clients.http(
            api.cluster_name, ClientOptions(timeout=api.request_timeout, max_response_bytes=_MAX_RESPONSE)
        )
        self.random = worker.random_for("xds rest")
        self.interest = interest
        interest.source = self
        self._sooner = asyncio.Event()
        self._restoring = asyncio.Lock()
        self._task = worker.loop.create_task(self._run())
        tasks: set[Any] = worker.tasks
        tasks.add(self._task)
        self._task.add_done_callback(tasks.discard)

    is_busy = False

    def changed(self, interest: Interest, before: frozenset[str] | None) -> None:
        self._sooner.set()

    def closed(self, interest: Interest) -> None:
        self._task.cancel()
        self.over(self)

    def waited(self, interest: Interest) -> None:
        task = self.worker.loop.create_task(self._restore(over=True))
        tasks: set[Any] = self.worker.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _run(self) -> None:
        while True:
            self._sooner.clear()
            try:
                await self._ask()
            except Exception:
                log.exception("%r: the answer could not be dealt with", self)
            wait = self.api.refresh_delay + self.random.random() * _JITTER
            try:
                async with asyncio.timeout(wait):  # Python 3.11's wait_for may lose a cancellation
                    await self._sooner.wait()
            except TimeoutError:
                continue

    async def _ask(self) -> None:
        interest = self.interest
        request = DiscoveryRequest(
            version_info=self.version,
            node=self.node,
            resource_names=sorted(interest.names or ()),
            type_url=interest.type_url,
        )
        body = json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None).encode()
        fields = [(b"content-type", b"application/json")]
        head = RequestHead(b"POST", self.path, self.api.cluster_name.encode(), fields, 11)
        try:
            response = await self.client.fetch(head, body)
        except RequestFailed as error:
            await self._failed(str(error))
            return
        if response.head.status == _NOT_MODIFIED:
            interest.stats.update_attempt += 1
            interest.settle()
        elif response.head.status != _OK:
            await self._failed(f"status {response.head.status}")
        else:
            await self._apply(response.body)

    async def _apply(self, body: bytes) -> None:
        interest = self.interest
        rejections: list[Rejection] = []
        try:
            response = await self.pace.aside(partial(read_text, Source(body, "response"), rejections))
        except ConfigurationError as error:
            log.warning("%r: the answer is not a DiscoveryResponse: %s", interest, error)
            interest.rejected()
            return
        response.type_url = interest.type_url
        resources = without_doubles(await decode(response, rejections, {}, (), self.pace), rejections)
        mine = [resource for resource in resources if interest.wants(resource.name)]
        whole = interest.names is None and not rejections
        own = await interest.deliver(mine, (), response.version_info, whole=whole, refused=rejections)
        for rejection in (*rejections, *own):
            log.warning("%r: not applied: %s: %s", interest, rejection.name, rejection.reason)
        bad = {rejection.name for rejection in own}
        if whole:
            here = {resource.name for resource in mine}
            self.accepted = {name: kept for name, kept in self.accepted.items() if name in here}
        if "" not in bad:
            for resource in mine:
                if resource.name not in bad:
                    payload = resource.payload
                    self.accepted[resource.name] = Kept(resource.version, payload.type_url, payload.value)
            self.last_good.save(interest.type_url, self.accepted, interest.names)
        if not (rejections or own):
            self.version = response.version_info

    async def _failed(self, reason: str) -> None:
        log.warning("%r: no answer: %s", self.interest, reason)
        self.interest.failed()
        await self._restore(over=False)

    async def _restore(self, *, over: bool) -> None:
        interest = self.interest
        async with self._restoring:
            taken = await interest.restore(self.last_good)
            self.accepted.update(taken)
            if over and not (taken or interest.answered or interest.is_closed):
                interest.unavailable()

    def __repr__(self) -> str:
        return f"<RestSubscription {self.path.decode()} {self.interest!r}>"
