"""From what `--store` says to the store, and to those that share it."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import NamedTuple

from controlplane.galley.election import AlwaysLeading, EtcdElection
from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.presence import Alone, EtcdPresence
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.election import Election, Presence
from controlplane.model.store import Store


class OpenStore(NamedTuple):
    """A store, who leads of those that share it, and who they are."""

    store: Store
    election: Election
    presence: Presence


async def open_store(where: str) -> OpenStore:
    """``where`` is `etcd://...` or `etcds://...` (`EtcdUrl`), or the path of a SQLite file, with or without `sqlite:` before.

    Raises ValueError if it is none of these, Unavailable if it cannot be opened.
    """
    identity = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    if where.startswith(("etcd://", "etcds://")):
        store = await EtcdStore.open(where)
        client = store.client
        return OpenStore(store, EtcdElection(client, "leader", identity), EtcdPresence(client, identity))
    path = where.removeprefix("sqlite:")
    if not path or "://" in path:
        raise ValueError(f"{where!r}: a store is etcd://host:port, etcds://host:port, or the path of a file")
    return OpenStore(await SqliteStore.open(Path(path)), AlwaysLeading(), Alone(identity))
