"""Lists of resources: whole or in pages, selected, in every form."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.api.resources import Document, Place, told
from controlplane.api.selectors import Selector
from controlplane.api.status import ApiError, expired
from controlplane.api.tables import Form, Shape, definitions, partial, row
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Compacted, Listing, Store, Stored

_SLICE = 250  # documents that are decoded without looking up: a few milliseconds
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Query:
    """What of a kind is asked for. ``name`` is the one that the field selector admits, if it is one alone."""

    labels: Selector | None = None
    fields: Selector | None = None
    name: str | None = None
    limit: int = 0
    continue_: str = ""
    revision: str = ""
    revision_match: str = ""

    def admits(self, document: Document) -> bool:
        """Whether both selectors are met."""
        return (self.labels is None or self.labels(document)) and (self.fields is None or self.fields(document))


async def list_resources(store: Store, place: Place, query: Query, form: Form) -> bytes:
    """The List, or Table, as JSON. Raises ApiError 400, 410 (too old, or not there yet)."""
    revision, after = await _start(store, place, query)
    items: list[bytes] = []
    rest: ResourceKey | None = None
    count = 0
    async for listing in _pages(store, place, query, revision, after):
        revision = listing.revision
        for stored in listing.items:
            count += 1
            if count % _SLICE == 0:
                await asyncio.sleep(0)
            document = told(stored, place)
            if query.admits(document):
                if query.limit and len(items) == query.limit:
                    break
                items.append(orjson.dumps(_item(place, document, form)))
            after = stored.key
        else:
            continue
        rest = after
        break
    metadata: dict[str, str] = {"resourceVersion": str(revision or 0)}
    if rest is not None:
        metadata["continue"] = _token(revision or 0, rest)
    return _joined(place, form, metadata, items)


async def list_at(store: Store, place: Place, revision: int) -> Listing:
    """All of a place as it was at ``revision``. Raises ApiError 410."""
    try:
        return await store.list(place.kind.name, place.namespace or None, revision=revision)
    except Compacted as error:
        raise _gone(error) from None


def parse_revision(text: str) -> int:
    """A resourceVersion. Raises ApiError 400."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, f'invalid resource version "{text}": it must be one that was told by this server')
    return int(text)


async def _start(store: Store, place: Place, query: Query) -> tuple[int | None, ResourceKey | None]:
    match = query.revision_match
    if match not in ("", "Exact", "NotOlderThan"):
        raise ApiError(400, f'resourceVersionMatch must be Exact or NotOlderThan, not "{match}"')
    if query.continue_:
        if query.revision not in ("", "0"):
            raise ApiError(400, "specifying resource version is not allowed when using continue")
        return _from_token(query.continue_, place)
    if not query.revision:
        if match:
            raise ApiError(400, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        return None, None
    revision = parse_revision(query.revision)
    if revision == 0 and match == "Exact":
        raise ApiError(400, 'resourceVersionMatch "Exact" is forbidden for resourceVersion "0"')
    current = await store.revision()
    if revision > current:
        # The store is another, or an older one, than the client's: it must begin anew.
        raise expired(
            f"The resourceVersion is of another time: {revision} ({current} is the newest); start a new list without it"
        )
    return (revision if match == "Exact" else None), None


async def _pages(
    store: Store, place: Place, query: Query, revision: int | None, after: ResourceKey | None
) -> AsyncIterator[Listing]:
    kind, namespace = place.kind.name, place.namespace or None
    if query.name is not None and revision is None and (namespace or not place.kind.namespaced):
        # One name in one namespace needs no list: it is what kubectl asks for while it waits.
        current = await store.revision()
        stored: Stored | None = await store.get(ResourceKey(kind, place.namespace, query.name))
        yield Listing(current, [] if stored is None else [stored])
        return
    limit = max(query.limit + 1, _PAGE) if query.limit else 0
    try:
        while True:
            listing = await store.list(kind, namespace, limit=limit, after=after, revision=revision)
            yield listing
            if not listing.more or not listing.items:
                return
            revision, after = listing.revision, listing.items[-1].key
    except Compacted as error:
        raise _gone(error) from None


def _gone(error: Compacted) -> ApiError:
    return expired(
        f"The resourceVersion is too old: {error.wanted} ({error.oldest} is the oldest); start a new list without it"
    )


def _token(revision: int, key: ResourceKey) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([1, revision, key.namespace, key.name])).decode()


def _from_token(text: str, place: Place) -> tuple[int, ResourceKey]:
    try:
        version, revision, namespace, name = orjson.loads(base64.urlsafe_b64decode(text.encode()))
        if version != 1 or type(revision) is not int or not isinstance(namespace, str) or not isinstance(name, str):
            raise ValueError("another version's token")
    except (ValueError, TypeError, binascii.Error):
        raise ApiError(400, "continue key is not valid: use the one of the last answer as it is") from None
    return revision, ResourceKey(place.kind.name, namespace, name)


def _item(place: Place, document: Document, form: Form) -> Any:
    match form.shape:
        case Shape.OBJECT:
            return document
        case Shape.METADATA:
            return partial(document, form)
        case Shape.TABLE:
            return row(place.kind, document, form)


def _joined(place: Place, form: Form, metadata: dict[str, str], items: list[bytes]) -> bytes:
    head: dict[str, Any]
    match form.shape:
        case Shape.OBJECT:
            head = {"apiVersion": place.api_version, "kind": f"{place.kind.name}List", "metadata": metadata}
        case Shape.METADATA:
            head = {"apiVersion": form.api_version, "kind": "PartialObjectMetadataList", "metadata": metadata}
        case Shape.TABLE:
            head = {
                "kind": "Table",
                "apiVersion": form.api_version,
                "metadata": metadata,
                "columnDefinitions": definitions(place.kind),
            }
    field = b"rows" if form.shape is Shape.TABLE else b"items"
    return b'%b,"%b":[%b]}' % (orjson.dumps(head)[:-1], field, b",".join(items))
