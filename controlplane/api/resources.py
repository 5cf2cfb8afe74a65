"""What can be done with resources, over the store: the API's verbs, without their HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.api import admission
from controlplane.api.status import ApiError, already_exists, conflict, details_of, invalid, not_found
from controlplane.model.causes import Invalid
from controlplane.model.kinds import Kind
from controlplane.model.resource import FROM_API, Origin, Resource, ResourceKey
from controlplane.model.store import Conflict, Store, Stored

Parse = Callable[[Mapping[str, Any], Origin], Resource]
Document = dict[str, Any]

PERMANENT_NAMESPACES = ("default", "istio-system")
_ATTEMPTS = 8
_AT_ONCE = 256
LARGEST_DOCUMENT = 1_400_000
"""Bytes of a resource as it is stored: what an etcd takes by default (1.5 MiB), with room for what is written beside it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a request is about: a kind in the version that was asked for, a namespace ("" for all, and for kinds that have
    none) and a name ("" for all).
    """

    kind: Kind
    version: str
    namespace: str = ""
    name: str = ""

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind.name, self.namespace, self.name)

    @property
    def api_version(self) -> str:
        """`apiVersion` of the answer."""
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version


class Resources:
    """Reads and writes resources.

    ``parse`` judges a document (raises Invalid). ``origin_of`` knows resources that come from elsewhere than this API, which
    are not changed here. Every change is written by compare-and-swap against the version that it was computed from.
    """

    def __init__(
        self,
        store: Store,
        kinds: Mapping[str, Kind],
        parse: Parse,
        origin_of: Callable[[ResourceKey], Origin | None] = lambda key: None,
    ) -> None:
        self.store = store
        self._kinds = kinds
        self._parse = parse
        self._origin_of = origin_of

    async def start(self) -> None:
        """See to it that the namespaces are there which every mesh has, and finish deletions that were cut short."""
        for name in PERMANENT_NAMESPACES:
            kind = self._kinds["Namespace"]
            document = admission.created({"metadata": {"name": name}}, kind, "", name)
            try:
                await self.store.put(
                    ResourceKey("Namespace", "", name), orjson.dumps(document), expected=0, who="mizzen"
                )
            except Conflict:
                continue
        for stored in (await self.store.list("Namespace")).items:
            if _is_ending(stored):
                await self._empty_namespace(stored.key, "mizzen")

    async def get(self, place: Place) -> Document:
        """Raises ApiError 404."""
        return told(await self._stored(place), place)

    async def create(self, place: Place, document: Document, *, who: str, dry_run: bool) -> Document:
        """Raises ApiError 400, 403, 404 (no such namespace), 409 (it is there), 422."""
        admission.check_type(document, place.kind, place.version)
        metadata = admission.metadata_of(document, place.kind)
        namespace, name = admission.place(metadata, place.kind, place.namespace, place.name)
        place = Place(place.kind, place.version, namespace, name)
        if metadata.get("resourceVersion"):
            raise ApiError(400, "resourceVersion should not be set on objects to be created")
        self._check_writable(place)
        if place.kind.namespaced:
            await self._check_namespace(namespace)
        result = admission.created(document, place.kind, namespace, name)
        self._judge(result, place)
        if dry_run:
            if await self.store.get(place.key) is not None:
                raise already_exists(place.kind, name)
            return {**result, "apiVersion": place.api_version}
        try:
            stored = await self.store.put(place.key, _encoded(result), expected=0, who=who)
        except Conflict:
            raise already_exists(place.kind, name) from None
        if place.kind.namespaced:
            try:
                await self._check_namespace(namespace)  # it may have ended meanwhile, and must not leave this behind
            except ApiError:
                await self.store.delete(place.key, expected=None, who=who)
                raise
        return told(stored, place)

    async def change(
        self,
        place: Place,
        edit: Callable[[Document], Document],
        *,
        who: str,
        dry_run: bool,
        status: bool = False,
    ) -> Document:
        """Write what ``edit`` makes of the resource as it is told now; its `status` alone, or all but that.

        If somebody else writes between, ``edit`` is asked again. Raises ApiError 400, 403, 404, 409, 422.
        """
        self._check_writable(place)
        for _ in range(_ATTEMPTS):
            stored = await self._stored(place)
            current = told(stored, place)
            document = edit(current)
            admission.check_type(document, place.kind, place.version)
            admission.place(admission.metadata_of(document, place.kind), place.kind, place.namespace, place.name)
            kept = told(stored, Place(place.kind, place.kind.versions[0], place.namespace, place.name))
            if status:
                result = admission.with_status(document, place.kind, kept)
            else:
                result = admission.replaced(document, place.kind, kept)
            self._judge(result, place)
            if result == _without_revision(kept):
                return current
            if dry_run:
                metadata = {**result["metadata"], "resourceVersion": str(stored.revision)}
                return {**result, "apiVersion": place.api_version, "metadata": metadata}
            try:
                written = await self.store.put(place.key, _encoded(result), expected=stored.revision, who=who)
            except Conflict:
                continue
            return told(written, place)
        raise conflict(place.kind, place.name, "it changes faster than this change can be made; please try again")

    async def delete(
        self, place: Place, *, who: str, dry_run: bool, uid: str | None = None, revision: str | None = None
    ) -> Document:
        """Remove a resource, and with a namespace all that is in it. Returns it as it was. Raises ApiError 403, 404, 409."""
        self._check_writable(place)
        if place.kind.name == "Namespace" and place.name in PERMANENT_NAMESPACES:
            raise ApiError(
                403,
                f'namespaces "{place.name}" is forbidden: this namespace may not be deleted',
                details=_details(place),
            )
        for _ in range(_ATTEMPTS):
            stored = await self._stored(place)
            current = told(stored, place)
            admission.check_preconditions(place.kind, current, uid, revision)
            if dry_run:
                return current
            if place.kind.name == "Namespace":
                return await self._delete_namespace(place, current, who)
            try:
                if await self.store.delete(place.key, expected=stored.revision, who=who) is None:
                    raise not_found(place.kind, place.name)
            except Conflict:
                continue
            return current
        raise conflict(place.kind, place.name, "it changes faster than it can be deleted; please try again")

    async def _delete_namespace(self, place: Place, current: Document, who: str) -> Document:
        # Nothing is created in it from now on, so that nothing is left behind.
        ended = {**_without_revision(current), "status": {"phase": "Terminating"}}
        ended["apiVersion"] = place.kind.api_version
        await self.store.put(place.key, orjson.dumps(ended), expected=None, who=who)
        await self._empty_namespace(place.key, who)
        return current

    async def _empty_namespace(self, key: ResourceKey, who: str) -> None:
        for kind in self._kinds.values():
            if kind.namespaced:
                keys = [stored.key for stored in (await self.store.list(kind.name, key.name)).items]
                for start in range(0, len(keys), _AT_ONCE):  # which share what makes them durable
                    some = keys[start : start + _AT_ONCE]
                    await asyncio.gather(*(self.store.delete(one, expected=None, who=who) for one in some))
        await self.store.delete(key, expected=None, who=who)

    async def _stored(self, place: Place) -> Stored:
        stored = await self.store.get(place.key)
        if stored is None:
            raise not_found(place.kind, place.name)
        return stored

    async def _check_namespace(self, namespace: str) -> None:
        key = ResourceKey("Namespace", "", namespace)
        stored = await self.store.get(key)
        if stored is None:
            if self._origin_of(key) is None:
                raise not_found(self._kinds["Namespace"], namespace)
        elif _is_ending(stored):
            raise ApiError(
                403,
                f"unable to create new content in namespace {namespace} because it is being terminated",
                details=details_of(self._kinds["Namespace"], namespace),
            )

    def _check_writable(self, place: Place) -> None:
        origin = self._origin_of(place.key)
        if origin is not None and origin.source != FROM_API.source:
            raise ApiError(
                403,
                f"{place.kind.plural} {place.name!r} comes from {origin} and is read-only here: change it there",
                details=_details(place),
            )

    def _judge(self, document: Document, place: Place) -> None:
        try:
            self._parse(document, FROM_API)
        except Invalid as error:
            raise invalid(place.kind, place.name, error.causes) from None


def told(stored: Stored, place: Place) -> Document:
    """A stored resource as a client gets it: in the version that it asked for, with its resourceVersion."""
    document: Document = orjson.loads(stored.document)
    document["apiVersion"] = place.api_version
    document["metadata"]["resourceVersion"] = str(stored.revision)
    return document


def _encoded(document: Document) -> bytes:
    content = orjson.dumps(document)
    if len(content) > LARGEST_DOCUMENT:
        raise ApiError(413, f"the resource has {len(content)} bytes, at most {LARGEST_DOCUMENT} are stored: split it")
    return content


def _is_ending(namespace: Stored) -> bool:
    return bool((orjson.loads(namespace.document).get("status") or {}).get("phase") == "Terminating")


def _without_revision(document: Document) -> Document:
    metadata = {name: value for name, value in document["metadata"].items() if name != "resourceVersion"}
    return {**document, "metadata": metadata}


def _details(place: Place) -> dict[str, Any]:
    return details_of(place.kind, place.name)
