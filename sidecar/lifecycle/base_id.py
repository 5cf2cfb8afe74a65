"""``--base-id``: where the processes of one sidecar find each other, for a restart that is not begun by the old process.

A Unix socket in a directory that is ours alone: ``$XDG_RUNTIME_DIR/mizzen``, or ``/tmp/mizzen-<user id>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import stat
from collections.abc import Callable

from sidecar.lifecycle.handover import HandoverError, peer_is_ours

log = logging.getLogger("sidecar.main")


def directory() -> str:
    """The directory of the sockets, made if it is not there. Raises HandoverError when others could write to it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = os.path.join(runtime, "mizzen") if runtime else f"/tmp/mizzen-{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    except OSError as error:
        where = "XDG_RUNTIME_DIR says so; set it to a directory that is there" if runtime else "it has to be writable"
        raise HandoverError(f"--base-id: {path} cannot be made: {error.strerror} ({where})") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise HandoverError(f"--base-id: {path} must be a directory of user {os.getuid()} alone, with mode 0700")
    return path


class BaseId:
    """The place of one base id. ``found`` is the connection to the process that has it now, if there is one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.path = os.path.join(directory(), f"{number}.sock")
        self._prepared = f"{self.path}.{os.getpid()}"
        self._listening: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def unused(cls) -> BaseId:
        """One that no process has."""
        while True:
            made = cls(random.SystemRandom().randrange(1 << 31))
            if not os.path.exists(made.path):
                return made

    def connect(self) -> socket.socket | None:
        """A connection to the process that has this base id; None if there is none. Raises HandoverError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise HandoverError(f"--base-id {self.number}: cannot connect to {self.path}: {error.strerror}") from error
        if not peer_is_ours(sock):
            sock.close()
            raise HandoverError(f"--base-id {self.number}: the process at {self.path} is another user's")
        return sock

    def prepare(self) -> None:
        """All of ``listen`` that can fail, done before another process is told to make room. Raises HandoverError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._prepared)
            sock.bind(self._prepared)
            sock.listen()
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise HandoverError(
                f"--base-id {self.number}: cannot listen on {self._prepared}: {error.strerror or error}"
            ) from error
        self._listening = sock

    def listen(self, loop: asyncio.AbstractEventLoop, on_connection: Callable[[socket.socket], None]) -> None:
        """Be the process that has this base id, in the place of the one that had it; ``prepare`` comes first."""
        sock = self._listening
        assert sock is not None, "it has not been prepared"
        try:
            os.rename(self._prepared, self.path)
        except OSError as error:  # we serve all the same
            log.error("--base-id %d: nobody can take over from this process: %s: %s", self.number, self.path,
                      error.strerror)  # fmt: skip
            return

        def accept() -> None:
            try:
                accepted, _ = sock.accept()
            except OSError:
                return
            if peer_is_ours(accepted):
                on_connection(accepted)
            else:
                accepted.close()

        loop.add_reader(sock.fileno(), accept)
        self._loop = loop

    def give_up(self, *, remove: bool) -> None:
        """Have it no more; ``remove`` says that no other process has it either. What was only prepared is undone."""
        sock, self._listening = self._listening, None
        if sock is None:
            return
        if self._loop is None:
            remove, path = True, self._prepared
        else:
            self._loop.remove_reader(sock.fileno())
            path = self.path
        sock.close()
        if remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def __repr__(self) -> str:
        return f"<BaseId {self.number}{' (ours)' if self._listening is not None else ''}>"
