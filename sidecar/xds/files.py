"""Resources from files: a `DiscoveryResponse` in YAML, JSON or as protobuf, read again when something is moved onto it.

Source: Envoy's ``FilesystemSubscriptionImpl``. It is moves that count, as with Envoy: who writes into the file itself would
have it read half-written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from sidecar.config.config_source import PathConfigSource
from sidecar.config.problems import ConfigurationError, Problem
from sidecar.config.source import Source
from sidecar.core.discovery import Rejection
from sidecar.core.pace import Pace
from sidecar.core.worker import Worker
from sidecar.xds.inotify import Inotify
from sidecar.xds.interest import Interest
from sidecar.xds.responses import decode, without_doubles

log = logging.getLogger("sidecar.xds")

_OF_RESOURCE: Final = re.compile(r"resources\[(\d+)\]")


class FileSubscription:
    """One file, and who is interested in what it holds. What is wrong in it is rejected, resource by resource."""

    def __init__(
        self,
        worker: Worker,
        inotify: Inotify,
        source: PathConfigSource,
        interest: Interest,
        over: Callable[[FileSubscription], None],
    ) -> None:
        self.worker = worker
        self.pace = Pace(worker.clock)
        self.path = source.path
        self.over = over
        self.interest = interest
        interest.source = self
        directory, name = os.path.split(source.path)
        if source.watched_directory:
            self._cancel = inotify.watch(source.watched_directory, lambda moved: self.refresh())
        else:
            self._cancel = inotify.watch(directory or ".", lambda moved: self.refresh() if moved == name else None)
        self._again = False
        self._task: asyncio.Task[None] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file and hand over what it holds, soon."""
        self._again = True
        if self._task is None:
            self._task = self.worker.loop.create_task(self._run())
            tasks: set[Any] = self.worker.tasks
            tasks.add(self._task)
            self._task.add_done_callback(tasks.discard)

    is_busy = False

    def changed(self, interest: Interest, before: frozenset[str] | None) -> None:
        self.refresh()

    def closed(self, interest: Interest) -> None:
        self._cancel()
        if self._task is not None:
            self._task.cancel()
        self.over(self)

    def waited(self, interest: Interest) -> None:
        """Files are read at once: nobody waits."""

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._read()
        finally:
            self._task = None

    async def _read(self) -> None:
        interest = self.interest
        rejections: list[Rejection] = []
        try:
            response = await self.pace.aside(partial(read_response, self.path, rejections))
        except ConfigurationError as error:
            log.warning("%r: stays as it is: %s", interest, error)
            interest.failed()
            if not interest.answered:
                interest.unavailable()
            return
        response.type_url = interest.type_url
        resources = without_doubles(await decode(response, rejections, {}, (), self.pace), rejections)
        whole = interest.names is None and not rejections
        mine = [resource for resource in resources if interest.wants(resource.name)]
        own = await interest.deliver(mine, (), response.version_info, whole=whole, refused=rejections)
        for rejection in (*rejections, *own):
            log.warning("%s: not applied: %s: %s", self.path, rejection.name, rejection.reason)

    def __repr__(self) -> str:
        return f"<FileSubscription {self.path} {self.interest!r}>"


def read_response(path: str, rejections: list[Rejection]) -> Any:
    """What a file holds; resources with a problem are left out and rejected. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigurationError([Problem(path, 0, 0, "", f"cannot be read: {error.strerror}")]) from error
    if path.endswith((".pb", ".pb_text")):
        try:
            if path.endswith(".pb"):
                return DiscoveryResponse.FromString(data)
            return text_format.Parse(data, DiscoveryResponse())
        except (DecodeError, text_format.ParseError) as error:
            raise ConfigurationError([Problem(path, 0, 0, "", f"holds no DiscoveryResponse: {error}")]) from None
    return read_text(Source(data, path), rejections)


def read_text(source: Source, rejections: list[Rejection]) -> Any:
    """A response in YAML or JSON; resources with a problem are left out and rejected. Raises ConfigurationError."""
    problems: list[Problem] = []
    response = source.read(DiscoveryResponse(), problems)
    bad: dict[int, list[Problem]] = {}
    for problem in problems:
        match = _OF_RESOURCE.match(problem.path)
        if match is None:
            raise ConfigurationError(problems)
        bad.setdefault(int(match[1]), []).append(problem)
    for index in sorted(bad, reverse=True):
        rejections.append(Rejection("", "; ".join(map(str, bad[index]))))
        del response.resources[index]
    return response
