"""The audit log: every identity that was issued or refused, one JSON object a line, in a file that is only appended to.

What is issued is handed out after its line is on the disk (`fdatasync`; calls that come meanwhile share the next one). If the
line cannot be written nothing is issued, until there is room again. Refusals are written when they happen and not waited for;
of very many in a short time some are left out, and the next line says how many, so that strangers cannot fill the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from controlplane.model.certificates import CannotIssue
from controlplane.model.credentials import Means

log = logging.getLogger("controlplane.citadel")

NOTHING: Final = "nothing good"
_MEANS: Final = tuple(Means)
_REFUSALS: Final = 200.0  # lines of refusals at once,
_REFUSALS_EACH_SECOND: Final = 2.0  # and so many each second on and on


class AuditLog:
    """Appends to ``path`` (0600). Somebody may rename the file while it is written to, as logrotate does: the next line goes
    into a new one.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError if the file cannot be had."""
        self.path = path
        self._clock = clock
        self._descriptor = -1
        self._inode = 0
        self._renamed: list[int] = []
        self._allowance = _REFUSALS
        self._allowed_at = clock()
        self._left_out = 0
        self._full = False
        self._synced: asyncio.Future[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self.counts: Counter[tuple[str, str]] = Counter()  # by event, and by what was shown
        self._open()

    def __repr__(self) -> str:
        return f"<AuditLog {self.path}>"

    async def issued(self, line: Mapping[str, Any]) -> None:
        """Write a line, and return when it is on the disk. Raises CannotIssue; then it is not in the file, or the file is on
        a disk that fails.
        """
        try:
            self._write(line)
        except OSError as error:
            raise self._refusal(error) from error
        if self._synced is None:
            self._synced = asyncio.get_running_loop().create_future()
        synced = self._synced
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        try:
            await asyncio.shield(synced)
        except OSError as error:
            raise self._refusal(error) from error
        self._full = False
        self._count(line)

    def withdrawn(self, line: Mapping[str, Any]) -> None:
        """Write that what an earlier line says was issued was not handed out, if that can be done."""
        try:
            self._write(line)
        except OSError as error:
            self._complain(error)

    def refused(self, line: Mapping[str, Any]) -> None:
        """Write a line, if that can be done."""
        self._count(line)
        now = self._clock()
        self._allowance = min(_REFUSALS, self._allowance + max(0.0, now - self._allowed_at) * _REFUSALS_EACH_SECOND)
        self._allowed_at = now
        if self._allowance < 1.0:
            self._left_out += 1
            return
        self._allowance -= 1.0
        left_out = {"refusalsLeftOut": self._left_out} if self._left_out else {}
        try:
            self._write({**line, **left_out})
            self._left_out = 0
        except OSError as error:
            self._complain(error)

    def _count(self, line: Mapping[str, Any]) -> None:
        proof = line.get("authenticated", "")
        self.counts[line.get("event", ""), next((one.value for one in _MEANS if proof.startswith(one)), NOTHING)] += 1

    def lines(self, most: int) -> Iterator[dict[str, Any]]:
        """What is in the last ``most`` bytes of the file; lines that are no JSON are passed over. For another thread."""
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                file.seek(size - most)
                file.readline()
            for line in file:
                with contextlib.suppress(orjson.JSONDecodeError):
                    found = orjson.loads(line)
                    if isinstance(found, dict):
                        yield found

    async def close(self) -> None:
        """After what is being written."""
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        for descriptor in (*self._renamed, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._renamed, self._descriptor = [], -1

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        status = os.fstat(descriptor)
        if status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n":
            os.write(descriptor, b"\n")  # whoever wrote last was killed in the middle of a line
        if self._descriptor >= 0:
            # Lines of the file that was renamed may be waited for; it is synced with the new one.
            self._renamed.append(self._descriptor)
        self._descriptor, self._inode = descriptor, status.st_ino

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            if os.stat(self.path).st_ino != self._inode:
                self._open()
        except FileNotFoundError:
            self._open()
        content = orjson.dumps(line) + b"\n"
        before = os.fstat(self._descriptor).st_size
        written = os.write(self._descriptor, content)
        if written < len(content):  # the disk is full: half a line is none
            os.ftruncate(self._descriptor, before)
            raise OSError(28, "No space left on device")

    async def _sync(self) -> None:
        while self._synced is not None:
            waiting, self._synced = self._synced, None
            renamed, self._renamed = self._renamed, []
            try:
                for descriptor in (*renamed, self._descriptor):
                    await asyncio.to_thread(os.fdatasync, descriptor)
            except OSError as error:
                waiting.set_exception(error)
                waiting.exception()  # nobody may be left who waits
            else:
                waiting.set_result(None)
            for descriptor in renamed:
                os.close(descriptor)
        self._syncing = None

    def _refusal(self, error: OSError) -> CannotIssue:
        self._complain(error)
        return CannotIssue(
            f"nothing is issued while the audit log cannot be written ({error.strerror or error}): make room on the disk "
            "of the control plane's data directory"
        )

    def _complain(self, error: OSError) -> None:
        if not self._full:
            log.error("%s: the audit log cannot be written, and nothing is issued: %s", self.path, error)
        self._full = True
