"""From what `--store` says to the store and to the election among those that share it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from controlplane.galley.election import AlwaysLeading, EtcdElection
from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.election import Election
from controlplane.model.store import Store


async def open_store(where: str) -> tuple[Store, Election]:
    """``where`` is `etcd://...` or `etcds://...` (`EtcdUrl`), or the path of a SQLite file, with or without `sqlite:` before.

    Raises ValueError if it is none of these, Unavailable if it cannot be opened.
    """
    if where.startswith(("etcd://", "etcds://")):
        store = await EtcdStore.open(where)
        return store, EtcdElection(store.client, "leader", f"{socket.gethostname()}-{os.getpid()}")
    path = where.removeprefix("sqlite:")
    if not path or "://" in path:
        raise ValueError(f"{where!r}: a store is etcd://host:port, etcds://host:port, or the path of a file")
    return await SqliteStore.open(Path(path)), AlwaysLeading()
