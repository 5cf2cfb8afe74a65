"""A directory of YAML and JSON files as a source of documents, followed as it changes.

inotify only wakes: what counts is what a scan finds, compared by each file's inode, size and time of change. A difference
is acted on when two scans agree on it, so that neither a file that is half written nor the moment in which an editor has
moved the old file away is taken for a change. Kubernetes' volumes (links through `..data`, which is swapped by a rename)
are followed by what the links lead to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from controlplane.galley.inotify import Inotify
from controlplane.galley.source import Document, Update
from controlplane.model.documents import Unreadable, read_documents
from controlplane.model.kinds import KINDS
from controlplane.model.parsing import DEFAULT_NAMESPACE
from controlplane.model.problem import Problem
from controlplane.model.resource import Origin, ResourceKey

_log = logging.getLogger(__name__)

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_LARGEST: Final = 32 << 20
"""Bytes of one file: one that is larger is no configuration that a person has written."""

KeyOf = Callable[[Mapping[str, Any], Origin], ResourceKey]


def key_of(body: Mapping[str, Any], origin: Origin) -> ResourceKey:
    """What resource a document is of, as far as can be told before it is judged. Raises Unreadable."""
    kind, metadata = body.get("kind"), body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(kind, str) or not kind or not isinstance(name, str) or not name:
        missing = "metadata.name" if isinstance(kind, str) and kind else "kind"
        raise Unreadable(origin, f"{missing} is required: a document says what it is of")
    if kind in KINDS and not KINDS[kind].namespaced:
        return ResourceKey(kind, "", name)
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    return ResourceKey(kind, str(namespace or DEFAULT_NAMESPACE), name)


class _Signature(NamedTuple):
    """Two of them are the same only if nothing was written in between."""

    device: int
    inode: int
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class _File:
    """What a file says: the documents of its last good state, and what is wrong with its present one."""

    documents: Sequence[Document] = ()
    problem: Problem | None = None


class DirectorySource:
    """The documents below a directory, in files that end in .yaml, .yml or .json; what begins with a dot is left out.

    ``key_of`` tells what resource a document is of, and raises Unreadable if that cannot be told. ``settle`` is how many
    seconds lie between the two scans that must agree; ``poll`` how often is looked without being woken.
    """

    def __init__(
        self,
        path: Path,
        key_of: KeyOf = key_of,
        *,
        name: str = "files",
        settle: float = 0.05,
        poll: float | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self._key_of = key_of
        self._settle = settle
        self._poll = poll
        self._read: dict[str, _Signature] = {}
        self._files: dict[str, _File] = {}
        self._lost: Problem | None = None
        self._told: dict[ResourceKey, Document] = {}

    async def updates(self) -> AsyncGenerator[Update, None]:
        """Raises NotADirectoryError if there is no such directory at the beginning; later that is a problem that is told."""
        if not self.path.is_dir():
            raise NotADirectoryError(
                f"{self.path} is not a directory: make it, or name another for the files of resources"
            )
        inotify = Inotify.open()
        poll = self._poll if self._poll is not None else (10.0 if inotify else 1.0)
        try:
            seen = await asyncio.to_thread(self._scan, inotify)
            await asyncio.to_thread(self._take, seen)
            yield self._update(whole=True)
            while True:
                pending = seen != self._read
                if inotify is None or pending:
                    await asyncio.sleep(self._settle if pending else poll)
                else:
                    await inotify.wait(poll)
                if inotify is not None:
                    inotify.drain()
                before, lost = seen, self._lost
                seen = await asyncio.to_thread(self._scan, inotify)
                if seen == before and seen != self._read:
                    await asyncio.to_thread(self._take, seen)
                    yield self._update()
                elif self._lost != lost:
                    yield self._update()
        finally:
            if inotify is not None:
                inotify.close()

    # In a thread: what touches the disk.

    def _scan(self, inotify: Inotify | None) -> dict[str, _Signature]:
        """The files that there are, by their paths, in order; those of before if the directory cannot be looked through."""
        found: dict[str, _Signature] = {}
        try:
            for path in _walk(str(self.path), inotify):
                try:
                    status = os.stat(path)
                except FileNotFoundError:  # it went away between the two calls, or its link leads nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[path] = _signature(status)
        except OSError as error:
            origin = Origin(self.name, str(error.filename or self.path))
            self._lost = Problem(origin, f"cannot be looked through: {error.strerror}; what was read of it still holds")
            return self._read
        self._lost = None
        return found

    def _take(self, seen: Mapping[str, _Signature]) -> None:
        """Read what is different. A file that changes while it is read is left for the next scan."""
        for path in [path for path in self._files if path not in seen]:
            del self._files[path]
        read: dict[str, _Signature] = {}
        for path, signature in seen.items():
            if self._read.get(path) == signature:
                read[path] = signature
                continue
            last = self._files.get(path, _File())
            try:
                with open(path, "rb") as file:
                    data = file.read(_LARGEST + 1)
                    status = os.fstat(file.fileno())
                if _signature(status) != signature:
                    continue
                self._files[path] = _File(self._documents(path, data))
            except OSError as error:
                self._files[path] = _File(
                    last.documents, self._problem(Origin(self.name, path), str(error.strerror), last)
                )
            except Unreadable as error:
                self._files[path] = _File(last.documents, self._problem(error.origin, error.message, last))
            read[path] = signature
        self._read = read

    def _documents(self, path: str, data: bytes) -> Sequence[Document]:
        if len(data) > _LARGEST:
            raise Unreadable(Origin(self.name, path), f"is larger than {_LARGEST >> 20} MiB: split it")
        documents: dict[ResourceKey, Document] = {}
        for body, origin in read_documents(data, path, self.name):
            key = self._key_of(body, origin)
            if key in documents:
                raise Unreadable(
                    origin, f"{key} is at line {documents[key].origin.line} of this file already: remove either"
                )
            documents[key] = Document(key, body, origin)
        return list(documents.values())

    def _problem(self, origin: Origin, message: str, last: _File) -> Problem:
        count = len(last.documents)
        holds = f"the {count} documents of its last good state still hold" if count else "nothing of it is in effect"
        problem = Problem(origin, f"{message}; {holds}")
        _log.warning("%s", problem)
        return problem

    # What it amounts to.

    def _update(self, *, whole: bool = False) -> Update:
        """The difference to what was told before. Of two files with the same resource, the first in order counts."""
        now: dict[ResourceKey, Document] = {}
        problems = [file.problem for file in self._files.values() if file.problem]
        if self._lost is not None:
            problems.append(self._lost)
        for path in sorted(self._files):
            for document in self._files[path].documents:
                first = now.setdefault(document.key, document)
                if first is not document:
                    message = f"has no effect, because {first.origin} has one of that name: remove either"
                    problems.append(Problem(document.origin, message, document.key))
        changed: dict[ResourceKey, Document | None] = {
            key: document for key, document in now.items() if self._told.get(key) is not document
        }
        changed.update((key, None) for key in self._told if key not in now)
        self._told = now
        return Update(changed, whole, problems)


def _signature(status: os.stat_result) -> _Signature:
    # The time of the inode's change: unlike that of its content nobody can set it back, and it tells new permissions too.
    return _Signature(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def _walk(top: str, inotify: Inotify | None) -> Iterator[str]:
    """Paths of the files below, without what is hidden; links to directories are followed, each directory once.

    A directory is watched before it is listed, so that nothing falls between. Raises OSError.
    """

    def fail(error: OSError) -> None:
        raise error

    if inotify is not None:
        inotify.add(top)
    entered: set[tuple[int, int]] = set()
    for directory, directories, names in os.walk(top, followlinks=True, onerror=fail):
        kept = []
        for name in sorted(directories):
            path = os.path.join(directory, name)
            if name.startswith("."):
                continue
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in entered:
                entered.add((status.st_dev, status.st_ino))
                kept.append(name)
                if inotify is not None:
                    inotify.add(path)
        directories[:] = kept
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(directory, name)
