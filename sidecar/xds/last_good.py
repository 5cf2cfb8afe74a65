"""What was good last is kept on disk, for a start while the server is away.

A file for each type, in a directory of the node: one line that tells what it is and the checksum of the rest, which is a
serialised `DeltaDiscoveryResponse`. Files are written in a thread, whole, and moved into their place. Secrets, and whatever
else has a private key in it, are not kept: keys do not belong on a disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError

from sidecar.core.discovery import DiscoveredResource
from sidecar.core.pace import Pace
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.xds.resource_types import SECRET

log = logging.getLogger("sidecar.xds")

_MAGIC: Final = b"mizzen xds state 1 "
_DELAY: Final = 1.0
_KEY: Final = b"PRIVATE KEY-----"
_LONGEST: Final = 150  # characters; file systems have room for 255


class Kept(NamedTuple):
    """A resource that was accepted: its version, and what it is, serialised."""

    version: str
    type_url: str
    value: bytes

    def resource(self, name: str) -> DiscoveredResource:
        """The resource as it came."""
        return DiscoveredResource(name, self.version, Packed(type_url=self.type_url, value=self.value))


class LastGood(Protocol):
    """Where what was accepted is kept from one run to the next."""

    async def read(self, type_url: str) -> Mapping[str, Kept]:
        """What was kept of a type in an earlier run, by name; nothing if that is of no use."""
        ...

    def save(self, type_url: str, accepted: Mapping[str, Kept], wanted: Collection[str] | None) -> None:
        """This is what is good now, all of it (``wanted`` None), or what has come so far of the names that are wanted."""
        ...


class Forgetful:
    """Keeps nothing."""

    async def read(self, type_url: str) -> Mapping[str, Kept]:
        return {}

    def save(self, type_url: str, accepted: Mapping[str, Kept], wanted: Collection[str] | None) -> None:
        return


Changes = dict[str, tuple[Mapping[str, Kept], Collection[str] | None]]
"""What is to be written, by type: what was accepted, and what is wanted (None: everything)."""


class LastGoodFiles:
    """In files below ``directory``, for one node and one server (``source``). Writes a second after a change, not more.

    ``read_only`` is for all but one of several workers, who hear the same.
    """

    def __init__(self, worker: Worker, directory: Path, node_id: str, source: str, *, read_only: bool = False) -> None:
        self.worker = worker
        self.pace = Pace(worker.clock)
        self.read_only = read_only
        self.directory = directory / file_name(node_id) / file_name(source)
        self._changed: Changes = {}
        self._read: dict[str, Mapping[str, Kept]] = {}  # a thousand interests ask for one file
        self._reading = asyncio.Lock()
        self._turn = 0
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()
        self._timer: Callback | None = None
        self._writing: asyncio.Task[None] | None = None

    async def read(self, type_url: str) -> Mapping[str, Kept]:
        if type_url == SECRET:
            return {}
        async with self._reading:
            if type_url not in self._read:
                self._read[type_url] = await self.pace.aside(partial(read_state, self._path(type_url)))
            return self._read[type_url]

    def save(self, type_url: str, accepted: Mapping[str, Kept], wanted: Collection[str] | None) -> None:
        if self.read_only or type_url == SECRET:
            return
        self._read.pop(type_url, None)
        self._changed[type_url] = (accepted, wanted)
        if self._timer is None and self._writing is None:
            self._timer = self.worker.wheel.call_in(_DELAY, self._write)

    def flush(self) -> None:
        """Write now what there is to write, and wait for it: for the end."""
        if self._timer is not None:
            self.worker.wheel.cancel(self._timer)
            self._timer = None
        self._write_all(*self._taken())

    def _path(self, type_url: str) -> Path:
        return self.directory / (quote(type_url.rpartition("/")[2], safe="") + ".state")

    def _write(self) -> None:
        self._timer = None
        self._writing = self.worker.loop.create_task(self._write_elsewhere(*self._taken()))
        tasks: set[Any] = self.worker.tasks
        tasks.add(self._writing)
        self._writing.add_done_callback(tasks.discard)

    def _taken(self) -> tuple[int, Changes]:
        """What is to be written, with a number that tells what is newer: a copy, for it changes while a thread writes."""
        self._turn += 1
        changed: Changes = {
            type_url: (dict(kept), None if wanted is None else list(wanted))
            for type_url, (kept, wanted) in self._changed.items()
        }
        self._changed.clear()
        return self._turn, changed

    async def _write_elsewhere(self, turn: int, changed: Changes) -> None:
        try:
            await self.pace.aside(partial(self._write_all, turn, changed))
        finally:
            self._writing = None
        if self._changed and self._timer is None:
            self._timer = self.worker.wheel.call_in(_DELAY, self._write)

    def _write_all(self, turn: int, changed: Changes) -> None:
        with self._lock:
            for type_url, (kept, wanted) in changed.items():
                if self._written.get(type_url, 0) < turn:
                    self._written[type_url] = turn
                    self._write_one(self._path(type_url), type_url, kept, wanted)

    def _write_one(self, path: Path, type_url: str, kept: Mapping[str, Kept], wanted: Collection[str] | None) -> None:
        if wanted is not None:  # what is wanted and has not come yet, as it was
            before = read_state(path)
            kept = {**{name: before[name] for name in wanted if name in before}, **kept}
        shown = {name: one for name, one in kept.items() if _KEY not in one.value}
        if len(shown) < len(kept):
            log.warning("%d resources with a private key in them are not kept in %s", len(kept) - len(shown), path)
        try:
            write_state(path, type_url, shown)
        except OSError as error:
            log.warning("cannot keep what was good last: %s: %s", path, error.strerror or error)

    def __repr__(self) -> str:
        return f"<LastGoodFiles in {self.directory}>"


def file_name(text: str) -> str:
    """A name for a file or directory that tells the text, and stays where it is put."""
    name = quote(text or "-", safe="~")
    if len(name) > _LONGEST:
        return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name.replace(".", "%2E") if name in (".", "..") else name


def write_state(path: Path, type_url: str, kept: Mapping[str, Kept]) -> None:
    """Put a file in its place, or leave the one that is there. Raises OSError."""
    message = DeltaDiscoveryResponse(type_url=type_url)
    for name, one in kept.items():
        resource = message.resources.add(name=name, version=one.version)
        resource.resource.type_url, resource.resource.value = one.type_url, one.value
    content = message.SerializeToString()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # only we may read it
    try:
        with open(descriptor, "wb") as file:
            file.write(_MAGIC + b"%08x\n" % zlib.crc32(content))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_state(path: Path) -> dict[str, Kept]:
    """What a file holds, by name; nothing, with a warning, if it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("cannot read what was good last: %s: %s", path, error.strerror or error)
        return {}
    head, _, content = data.partition(b"\n")
    if head != _MAGIC + b"%08x" % zlib.crc32(content):
        log.warning("ignoring what was good last: %s is damaged", path)
        return {}
    try:
        message = DeltaDiscoveryResponse.FromString(content)
    except DecodeError:
        log.warning("ignoring what was good last: %s is damaged", path)
        return {}
    return {one.name: Kept(one.version, one.resource.type_url, one.resource.value) for one in message.resources}
