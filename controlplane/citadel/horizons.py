"""Until when something is good that a signer has signed: known before it is handed out, to all control planes on a store.

A root may leave only when the last certificate under it has ended. The audit log would tell, but each control plane has its
own; so before a certificate ends later than all others did, the store is told, with some room, so that it is not told each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store

_KEY: Final = ResourceKey("_SignedUntil", "", "signers")
_ROOM: Final = 0.25  # of the life of a certificate
_LEAST_ROOM: Final = 2.0  # seconds


class Horizons:
    """By the signer's id, seconds since the epoch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Mapping[str, float] = {}

    def covers(self, signer: str, ends: float) -> bool:
        """Whether the store knows that something of this signer is good until then."""
        return self._known.get(signer, 0.0) >= ends

    async def extend(self, signer: str, ends: float, lifetime: float) -> None:
        """Make that so; ``lifetime`` is the certificate's, in seconds. Raises Unavailable."""
        while not self.covers(signer, ends):
            stored = await self._store.get(_KEY)
            self._known = found = {} if stored is None else dict(json.loads(stored.document))
            if self.covers(signer, ends):
                return
            wanted = {**found, signer: ends + max(_LEAST_ROOM, _ROOM * lifetime)}
            try:
                revision = 0 if stored is None else stored.revision
                await self._store.put(_KEY, json.dumps(wanted).encode(), expected=revision, who="citadel")
                self._known = wanted
            except Conflict:
                continue

    async def read(self) -> Mapping[str, float]:
        """As the store has it."""
        stored = await self._store.get(_KEY)
        self._known = {} if stored is None else json.loads(stored.document)
        return self._known
