"""All resources that are in effect: merged from several sources, judged one by one, the last good version of each.

An order of sources decides between two that have the same key: files come before the API, so that what an operator has
put beside the control plane cannot be changed over the network. The one that is not in effect is told as a problem.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from controlplane.galley.source import Document, Source, Update
from controlplane.model.problem import Problem
from controlplane.model.resource import Origin, Resource, ResourceKey

_log = logging.getLogger(__name__)

_SLICE: Final = 0.004
"""Seconds that judging may hold the event loop."""

_STATUS_IS_INPUT: Final = frozenset({"WorkloadEntry", "Pod"})
"""Kinds whose status says something about the mesh (health, addresses); of all others it is what we ourselves have found."""

_BOOKKEEPING: Final = ("resourceVersion", "managedFields", "generation", "selfLink")

Parse = Callable[[Mapping[str, Any], Origin], Resource]
OnChange = Callable[[Mapping[ResourceKey, Resource | None]], None]


@dataclass(slots=True, eq=False)
class _Held:
    """What the catalogue has of one source."""

    source: Source
    documents: dict[ResourceKey, Document] = field(default_factory=dict)
    good: dict[ResourceKey, Resource] = field(default_factory=dict)
    wrong: dict[ResourceKey, Problem] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    listed: bool = False


class Catalogue:
    """The resources of all ``sources``, of which the first takes precedence.

    ``parse`` judges a document and raises an exception that says what is wrong with it. ``on_change`` hears of every
    difference, in the event loop: for the first time when each source has told everything that it has.
    """

    def __init__(self, sources: Sequence[Source], parse: Parse, on_change: OnChange) -> None:
        self._held = [_Held(source) for source in sources]
        self._parse = parse
        self._on_change = on_change
        self._resources: dict[ResourceKey, Resource] = {}
        self._shadowed: dict[ResourceKey, Problem] = {}
        self._synced = asyncio.Event()
        self.resources: Mapping[ResourceKey, Resource] = MappingProxyType(self._resources)

    def __repr__(self) -> str:
        return (
            f"<Catalogue of {len(self._resources)} resources from {', '.join(held.source.name for held in self._held)}>"
        )

    @property
    def problems(self) -> Sequence[Problem]:
        """All that is not in effect, and why, in the order of the sources."""
        return list(self._problems())

    def _problems(self) -> Iterator[Problem]:
        for held in self._held:
            yield from held.problems
            yield from held.wrong.values()
        yield from self._shadowed.values()

    @property
    def is_synced(self) -> bool:
        """Whether every source has told all it has, once."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Wait until every source has told all it has, and ``on_change`` has heard of it."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow the sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            for held in self._held:
                group.create_task(self._follow(held), name=f"source {held.source.name}")

    async def _follow(self, held: _Held) -> None:
        async with aclosing(held.source.updates()) as updates:
            async for update in updates:
                self._take(held, update, await self._judge(held, update))

    async def _judge(self, held: _Held, update: Update) -> dict[ResourceKey, Resource | Problem]:
        """The documents that are new or different, as resources or as what is wrong with them."""
        judged: dict[ResourceKey, Resource | Problem] = {}
        clock = asyncio.get_running_loop().time
        started = clock()
        for key, document in update.documents.items():
            if document is None:
                continue
            known, good = held.documents.get(key), held.good.get(key)
            if known is not None and known.body == document.body:
                if known.origin == document.origin:
                    continue
                if good is not None and key not in held.wrong:
                    judged[key] = replace(good, origin=document.origin)
                    continue
            judged[key] = self._judge_one(document, good)
            if clock() - started > _SLICE:
                await asyncio.sleep(0)
                started = clock()
        return judged

    def _judge_one(self, document: Document, good: Resource | None) -> Resource | Problem:
        try:
            return self._parse(document.body, document.origin)
        except Exception as error:  # whatever it is, all others go on
            holds = f"; what was written at {good.origin} before still holds" if good else "; it is not in effect"
            problem = Problem(document.origin, f"{error}{holds}", document.key)
            _log.warning("%s", problem)
            return problem

    def _take(self, held: _Held, update: Update, judged: Mapping[ResourceKey, Resource | Problem]) -> None:
        touched = set(judged)
        for key, document in update.documents.items():
            if document is not None:
                held.documents[key] = document
        gone = [key for key, document in update.documents.items() if document is None]
        if update.whole:
            gone += held.documents.keys() - update.documents.keys()
        for key in gone:
            held.documents.pop(key, None)
            held.good.pop(key, None)
            held.wrong.pop(key, None)
            touched.add(key)
        for key, outcome in judged.items():
            if isinstance(outcome, Problem):
                held.wrong[key] = outcome
            else:
                held.good[key] = outcome
                held.wrong.pop(key, None)
        held.problems = tuple(update.problems)
        held.listed = held.listed or update.whole
        changed = self._merge(touched)
        if self._synced.is_set():
            self._tell(changed)
        elif all(each.listed for each in self._held):
            self._tell(dict(self._resources))
            self._synced.set()

    def _merge(self, keys: set[ResourceKey]) -> dict[ResourceKey, Resource | None]:
        """Decide between the sources anew, for some keys; what is different now."""
        changed: dict[ResourceKey, Resource | None] = {}
        for key in keys:
            found = [held.good[key] for held in self._held if key in held.good]
            before, now = self._resources.get(key), found[0] if found else None
            self._shadowed.pop(key, None)
            for hidden in found[1:]:
                self._shadowed[key] = Problem(
                    hidden.origin, f"has no effect, because {found[0].origin} has one of that name: remove either", key
                )
            if now is None:
                self._resources.pop(key, None)
            else:
                self._resources[key] = now
            if now is not before and (now is None or before is None or _input(before) != _input(now)):
                changed[key] = now
        return changed

    def _tell(self, changed: Mapping[ResourceKey, Resource | None]) -> None:
        if changed or not self._synced.is_set():
            self._on_change(changed)


def _input(resource: Resource) -> Mapping[str, Any]:
    """What of a document makes a difference to the mesh. Statuses are written for every NACK and must cause no push."""
    metadata = resource.document.get("metadata") or {}
    body = {**resource.document, "metadata": {name: metadata[name] for name in metadata if name not in _BOOKKEEPING}}
    if resource.key.kind not in _STATUS_IS_INPUT:
        body.pop("status", None)
    return body
