"""The file of the SQLite store: its tables, and every statement that reads or changes them. Blocking; one thread each.

`changes` has one row for each change that is remembered, and `live` says which of them hold now. A change is one
revision, so that the revisions in the file have no gaps but those that compaction leaves.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Compacted, Conflict, Event, Listing, Stored, Unavailable

_APPLICATION: Final = 0x6D697A6E  # "mizn"
_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    action TEXT NOT NULL,
    document BLOB NOT NULL,
    who TEXT NOT NULL,
    moment REAL NOT NULL
);
CREATE INDEX changes_of_one ON changes (kind, namespace, name, revision);
CREATE TABLE live (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE progress (
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    swept INTEGER NOT NULL
);
INSERT INTO progress VALUES (0, 0, 0);
"""
_COLUMNS: Final = "c.kind, c.namespace, c.name, c.action, c.document, c.revision, c.who, c.moment"


@dataclass(frozen=True, slots=True)
class Write:
    """One change that somebody wants: a document, or None to remove it."""

    key: ResourceKey
    document: bytes | None
    expected: int | None
    who: str


@dataclass(frozen=True, slots=True)
class Page:
    """Changes after a revision, and the revision up to which there are no others."""

    events: Sequence[Event]
    upto: int


@dataclass(frozen=True, slots=True)
class Progress:
    """``revision`` is of the last change; what was before and at ``compacted`` is known as a state, not as changes;
    ``swept`` says how far the rows that compaction makes superfluous are removed.
    """

    revision: int
    compacted: int
    swept: int


class Ledger:
    """One connection to the file."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if not read_only:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds secrets; SQLite's own would be readable
        self.path = path
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            self._prepare(read_only)
        except sqlite3.Error as error:
            self._file.close()
            raise Unavailable(f"{path} cannot be used as a store: {error}") from None
        except BaseException:
            self._file.close()
            raise

    def _prepare(self, read_only: bool) -> None:
        execute = self._file.execute
        if read_only:
            execute("PRAGMA query_only = ON")
            return
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA journal_size_limit = 16777216")
        application, schema = (
            execute("PRAGMA application_id").fetchone()[0],
            execute("PRAGMA user_version").fetchone()[0],
        )
        if (application, schema) == (_APPLICATION, _SCHEMA):
            return
        if application == _APPLICATION:
            raise Unavailable(f"{self.path} is of a newer Mizzen (schema {schema}, known is {_SCHEMA}): use that one")
        if application or schema or execute("SELECT 1 FROM sqlite_master").fetchone():
            raise Unavailable(f"{self.path} is a database of another program: give the store a file of its own")
        self._file.executescript(
            f"BEGIN;{_TABLES}PRAGMA application_id = {_APPLICATION};PRAGMA user_version = {_SCHEMA};COMMIT;"
        )

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Progress]:
        """Everything that is read in here is of one moment."""
        self._file.execute("BEGIN")
        try:
            yield self.progress()
        finally:
            self._file.execute("ROLLBACK")

    def progress(self) -> Progress:
        return Progress(*self._file.execute("SELECT revision, compacted, swept FROM progress").fetchone())

    # Changing.

    def apply(self, writes: Sequence[Write], now: float) -> list[Event | Conflict | None]:
        """Do all of these in one transaction, with one fsync: for each its event, its conflict, or None if there was
        nothing to remove. Raises Unavailable, and then nothing was done.
        """
        execute = self._file.execute
        try:
            execute("BEGIN IMMEDIATE")
            try:
                start = revision = self.progress().revision
                outcomes: list[Event | Conflict | None] = []
                for write in writes:
                    outcome = self._change(write, revision + 1, now)
                    if isinstance(outcome, Event):
                        revision += 1
                    outcomes.append(outcome)
                if revision != start:
                    execute("UPDATE progress SET revision = ?", (revision,))
                execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Unavailable(f"the store cannot write to {self.path}: {error}") from error
        return outcomes

    def _change(self, write: Write, revision: int, now: float) -> Event | Conflict | None:
        execute = self._file.execute
        row = execute("SELECT revision FROM live WHERE kind = ? AND namespace = ? AND name = ?", write.key).fetchone()
        found: int = row[0] if row else 0
        if write.document is None and not found:
            return None
        if write.expected is not None and write.expected != found:
            return Conflict(write.key, write.expected, found)
        if write.document is None:
            action = Action.DELETED
            document: bytes = execute("SELECT document FROM changes WHERE revision = ?", (found,)).fetchone()[0]
            execute("DELETE FROM live WHERE kind = ? AND namespace = ? AND name = ?", write.key)
        else:
            action = Action.MODIFIED if found else Action.ADDED
            document = write.document
            execute("INSERT OR REPLACE INTO live VALUES (?, ?, ?, ?)", (*write.key, revision))
        execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (revision, *write.key, action, document, write.who, now),
        )
        return Event(action, Stored(write.key, document, revision), write.who, now)

    def compact(self, revision: int) -> None:
        """Forget what was before ``revision``; what is superfluous then is removed by `sweep`, bit by bit."""
        try:
            self._file.execute("UPDATE progress SET compacted = min(revision, max(compacted, ?))", (revision - 1,))
        except sqlite3.Error as error:
            raise Unavailable(f"the store cannot write to {self.path}: {error}") from error

    def sweep(self, limit: int) -> bool:
        """Remove what ``limit`` forgotten changes had replaced. False when there is nothing more to do."""
        progress = self.progress()
        upto = min(progress.swept + limit, progress.compacted)
        if upto == progress.swept:
            return False
        span = (progress.swept, upto)
        execute = self._file.execute
        execute("BEGIN IMMEDIATE")
        try:
            execute(
                "DELETE FROM changes WHERE revision IN (SELECT o.revision FROM changes AS c JOIN changes AS o ON o.kind = c.kind"
                " AND o.namespace = c.namespace AND o.name = c.name AND o.revision < c.revision"
                " WHERE c.revision > ? AND c.revision <= ?)",
                span,
            )
            execute("DELETE FROM changes WHERE action = 'DELETED' AND revision > ? AND revision <= ?", span)
            execute("UPDATE progress SET swept = ?", (upto,))
            execute("COMMIT")
        finally:
            if self._file.in_transaction:
                execute("ROLLBACK")
        return True

    # Reading.

    def get(self, key: ResourceKey) -> Stored | None:
        row = self._file.execute(
            f"SELECT {_COLUMNS} FROM live AS l JOIN changes AS c ON c.revision = l.revision"
            " WHERE l.kind = ? AND l.namespace = ? AND l.name = ?",
            key,
        ).fetchone()
        return _event(row).stored if row else None

    def list(
        self, kind: str, namespace: str | None, limit: int, after: ResourceKey | None, revision: int | None
    ) -> Listing:
        with self._snapshot() as progress:
            at = progress.revision if revision is None else revision
            _check(at, progress)
            where, values = "kind = ?", [kind]
            if namespace is not None:
                where, values = where + " AND namespace = ?", [*values, namespace]
            if after is not None:
                where, values = where + " AND (namespace, name) > (?, ?)", [*values, after.namespace, after.name]
            if at == progress.revision:
                which = f"SELECT revision FROM live WHERE {where} ORDER BY namespace, name"
            else:
                which = (
                    "SELECT revision FROM (SELECT namespace, name, action, max(revision) AS revision FROM changes"
                    f" WHERE {where} AND revision <= {at:d} GROUP BY namespace, name)"
                    " WHERE action != 'DELETED' ORDER BY namespace, name"
                )
            if limit:
                which += f" LIMIT {limit + 1:d}"
            rows = self._file.execute(
                f"SELECT {_COLUMNS} FROM ({which}) AS w JOIN changes AS c ON c.revision = w.revision"
                " ORDER BY c.namespace, c.name",
                values,
            ).fetchall()
        items = [_event(row).stored for row in (rows[:limit] if limit else rows)]
        return Listing(at, items, bool(limit) and len(rows) > limit)

    def changes(self, since: int, kinds: Collection[str] | None, limit: int) -> Page:
        """The first ``limit`` changes after a revision. Raises Compacted."""
        with self._snapshot() as progress:
            _check(since, progress)
            of_kinds = "" if kinds is None else f" AND c.kind IN ({', '.join('?' * len(kinds))})"
            rows = self._file.execute(
                f"SELECT {_COLUMNS} FROM changes AS c WHERE c.revision > ?{of_kinds} ORDER BY c.revision LIMIT ?",
                (since, *(kinds or ()), limit),
            ).fetchall()
        events = [_event(row) for row in rows]
        return Page(events, events[-1].stored.revision if len(events) == limit else progress.revision)

    def history(self, key: ResourceKey) -> Sequence[Event]:
        rows = self._file.execute(
            f"SELECT {_COLUMNS} FROM changes AS c WHERE c.kind = ? AND c.namespace = ? AND c.name = ? ORDER BY c.revision",
            key,
        )
        return [_event(row) for row in rows]


def _check(revision: int, progress: Progress) -> None:
    if not progress.compacted <= revision <= progress.revision:
        raise Compacted(revision, progress.compacted + 1)


def _event(row: tuple[Any, ...]) -> Event:
    kind, namespace, name, action, document, revision, who, moment = row
    return Event(Action(action), Stored(ResourceKey(kind, namespace, name), document, revision), who, moment)


def copy(path: Path, to: Path) -> None:
    """Write a whole copy of a store, of one moment, to a new file. Raises FileExistsError, Unavailable."""
    try:
        os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise FileExistsError(f"{to} exists: name a file that does not") from None
    except OSError as error:
        raise Unavailable(f"{to} cannot be written: {error.strerror}") from None
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(to)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        os.unlink(to)
        raise Unavailable(f"{path} cannot be copied to {to}: {error}") from None
