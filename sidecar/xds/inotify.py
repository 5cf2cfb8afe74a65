"""Which files are moved into a directory, told by the kernel. Source: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final

_MOVED_TO: Final = 0x80
_ONLY_DIRECTORIES: Final = 0x01000000
_HEAD: Final = struct.Struct("iIII")
_READ: Final = 65536

Moved = Callable[[str], None]
"""Called with the name of what was moved into the directory."""


class Inotify:
    """Watches of directories, on one descriptor that the loop reads. Raises OSError where the kernel has no inotify."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError("there is no inotify here")
        self._loop = loop
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watches: dict[int, list[Moved]] = {}
        loop.add_reader(self._descriptor, self._read)

    def watch(self, directory: str, moved: Moved) -> Callable[[], None]:
        """Call ``moved`` for all that is moved into ``directory``, until what is returned is called. Raises OSError."""
        number = self._checked(
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MOVED_TO | _ONLY_DIRECTORIES)
        )
        watches = self._watches.setdefault(number, [])
        watches.append(moved)

        def cancel() -> None:
            watches.remove(moved)
            if not watches and self._watches.pop(number, None) is not None:
                self._libc.inotify_rm_watch(self._descriptor, number)

        return cancel

    def close(self) -> None:
        """Watch nothing any more."""
        self._watches.clear()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            number, _, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            for moved in list(self._watches.get(number, ())):
                moved(name)

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def __repr__(self) -> str:
        return f"<Inotify of {len(self._watches)} directories>"
