"""What is found out about resources goes into their `status`, where `kubectl describe` shows it. One control plane writes.

Analysis messages are `status.validationMessages`, as Istio's; what proxies refuse is the condition `Reconciled`. Other parts of
a status are whoever's they are, and stay.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.status import conditions_of, status_of
from controlplane.model.store import Conflict, Store, Unavailable

_log = logging.getLogger(__name__)

_CONDITION: Final = "Reconciled"
_MOST: Final = 5  # refusals told in one status; many proxies refuse alike
_LONGEST: Final = 500  # characters of each

Messages = Sequence[Mapping[str, Any]]


class StatusWriter:
    """Writes what `tell_findings` and `tell_refusals` said last, for as long as `run` runs.

    ``resources`` are those in effect; only what comes from the API has a status to write to. After a change nothing is
    written for ``quiet`` seconds, because much of it is mended by the next one; refusals of one
    generation of a resource are written once in ``pause`` seconds, whatever a proxy keeps saying.
    """

    def __init__(
        self, store: Store, resources: Mapping[ResourceKey, Resource], *, quiet: float = 0.2, pause: float = 10.0
    ) -> None:
        self._store = store
        self._resources = resources
        self._quiet = quiet
        self._pause = pause
        self._later: asyncio.TimerHandle | None = None
        self._refused_at: dict[ResourceKey, tuple[float, int]] = {}  # when we last wrote one, of which generation
        self._findings: Mapping[ResourceKey, Messages] = {}
        self._refusals: Mapping[ResourceKey, Collection[str]] = {}
        self._written: set[ResourceKey] = set()  # these have something of ours in them
        self._looked = False
        self._something = asyncio.Event()

    def tell_findings(self, findings: Mapping[ResourceKey, Messages]) -> None:
        """All messages of the analysis, by the resource that each is about, in Istio's shape."""
        self._findings = findings
        self._something.set()

    def tell_refusals(self, refusals: Mapping[ResourceKey, Collection[str]]) -> None:
        """All that proxies refuse now, by the resources that it was made from."""
        self._refusals = refusals
        self._something.set()

    async def run(self) -> None:
        """Write until cancelled."""
        self._looked = False
        self._something.set()
        while True:
            await self._something.wait()
            await asyncio.sleep(self._quiet)
            self._something.clear()
            try:
                await self._write_all()
            except Unavailable as error:
                _log.warning("statuses are not written: %s", error)
                self._something.set()
                await asyncio.sleep(1)

    async def _write_all(self) -> None:
        if not self._looked:
            self._written.update(key for key, one in self._resources.items() if _ours(status_of(one.document)))
            self._looked = True
        for key in {*self._findings, *self._refusals, *self._written}:
            resource = self._resources.get(key)
            if resource is None or resource.origin.source != "api":
                self._written.discard(key)
                self._refused_at.pop(key, None)
                continue
            try:
                await self._write(key)
            except Unavailable:
                raise
            except Exception:  # of one resource; all others go on
                _log.exception("the status of %s is not written", key)

    async def _write(self, key: ResourceKey) -> None:
        for _ in range(5):  # somebody else may write in between
            stored = await self._store.get(key)
            if stored is None:
                self._written.discard(key)
                self._refused_at.pop(key, None)
                return
            document = orjson.loads(stored.document)
            before = status_of(document)
            after = self._status(key, before, document["metadata"].get("generation", 0))
            if _ours(after):
                self._written.add(key)
            else:
                self._written.discard(key)
            if _without_times(after) == _without_times(before):
                return
            if self._too_soon(key, before, after):
                return
            if after:
                document["status"] = after
            else:
                document.pop("status", None)
            try:
                await self._store.put(key, orjson.dumps(document), expected=stored.revision, who="status")
                if (refusal := _refusal(after)) is not None:
                    self._refused_at[key] = asyncio.get_running_loop().time(), refusal["observedGeneration"]
                return
            except Conflict:
                continue
        self._something.set()

    def _too_soon(self, key: ResourceKey, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
        """Whether there is nothing to write but a refusal, and one was written of the same generation only just: it is looked
        at again later.
        """
        written, refusal = self._refused_at.get(key), _refusal(after)
        if written is None or refusal is None or _without_refusal(before) != _without_refusal(after):
            return False
        at, generation = written
        loop = asyncio.get_running_loop()
        left = at + self._pause - loop.time()
        if generation != refusal["observedGeneration"] or left <= 0:
            return False
        if self._later is None:
            self._later = loop.call_later(left, self._look_again)
        return True

    def _look_again(self) -> None:
        self._later = None
        self._something.set()

    def _status(self, key: ResourceKey, before: Mapping[str, Any], generation: int) -> dict[str, Any]:
        after = dict(before)
        messages = self._findings.get(key)
        if messages:
            after["validationMessages"] = [dict(one) for one in messages]
        else:
            after.pop("validationMessages", None)
        others = [one for one in conditions_of(before) if one.get("type") != _CONDITION]
        refusals = sorted(self._refusals.get(key, ()))
        if refusals:
            told = [one[:_LONGEST] for one in refusals[:_MOST]]
            if len(refusals) > _MOST:
                told.append(f"and {len(refusals) - _MOST} more")
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            others.append(
                {
                    "type": _CONDITION,
                    "status": "False",
                    "reason": "RefusedByProxies",
                    "message": "; ".join(told),
                    "observedGeneration": generation,
                    "lastTransitionTime": now,
                }
            )
        if others:
            after["conditions"] = others
        else:
            after.pop("conditions", None)
        return after


def _ours(status: Mapping[str, Any]) -> bool:
    return "validationMessages" in status or _refusal(status) is not None


def _refusal(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((one for one in conditions_of(status) if one.get("type") == _CONDITION), None)


def _without_refusal(status: Mapping[str, Any]) -> dict[str, Any]:
    return {**status, "conditions": [one for one in conditions_of(status) if one.get("type") != _CONDITION]}


def _without_times(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [
        {name: value for name, value in one.items() if name != "lastTransitionTime"} for one in conditions_of(status)
    ]
    return {**status, "conditions": conditions}
