"""To be woken when something in a directory changes: Linux' inotify(7), by way of the C library."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from typing import Any, Final

_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED_FROM: Final = 0x40
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_DELETE_SELF: Final = 0x400
_IN_MOVE_SELF: Final = 0x800
_IN_ATTRIB: Final = 0x4
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = (
    _IN_CLOSE_WRITE | _IN_ATTRIB | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF
    | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_MOVE_SELF | _IN_ONLYDIR
)  # fmt: skip


class Inotify:
    """Watched directories. It says that something happened, not what: whoever is woken looks."""

    def __init__(self, descriptor: int, library: Any) -> None:
        self._descriptor = descriptor
        self._library = library

    @classmethod
    def open(cls) -> Inotify | None:
        """None where there is no inotify, or no more of it for this user."""
        try:
            library = ctypes.CDLL(None, use_errno=True)
            descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            return None
        return cls(descriptor, library) if descriptor >= 0 else None

    def add(self, directory: str) -> bool:
        """Watch a directory, once however often it is called. False if it cannot be watched."""
        return bool(self._library.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK) >= 0)

    def drain(self) -> None:
        """Forget what has happened so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass

    async def wait(self, timeout: float) -> None:
        """Return when something has happened since the last `drain`, or after so many seconds."""
        loop = asyncio.get_running_loop()
        happened = asyncio.Event()
        loop.add_reader(self._descriptor, happened.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await happened.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
