"""Where in the text of a configuration a field stands, told only when there is something to say about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from yaml.events import (
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from sidecar.config.source import Source

_PATH_PART = re.compile(r'\.?([^.\[\]]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')


class _Spot:
    """A value in the text, or a key of a mapping: the file and line, and what is inside by key or in order."""

    __slots__ = ("column", "file", "items", "line", "pairs")

    def __init__(self, file: str, line: int, column: int) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.pairs: list[tuple[str, _Spot, _Spot]] | None = None
        self.items: list[_Spot] | None = None


class Places:
    """Where the field at a path stands. Sources that were merged over each other count as one, the last one winning.

    The sources are gone through again when the first place is asked for, so that a configuration without problems never
    pays for it.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._roots: list[_Spot] | None = None

    def __call__(self, path: str) -> tuple[str, int, int]:
        """(file, line, column) of the field, or of the nearest thing around it; the line is 0 where there are none."""
        if self._roots is None:
            self._roots = [root for source in reversed(self._sources) for root in _roots(source)]
        spots = self._roots
        if not spots:
            return (self._sources[0].name if self._sources else "", 0, 0)
        place = spots[-1]
        for name, index, key in _PATH_PART.findall(path):
            if index:
                spots = _items(spots, int(index))
                found = spots[:1]
            else:
                pairs = list(_values(spots, json.loads(key) if key else name, exact=bool(key)))
                spots = [value for _, value in pairs]
                found = [spot for spot, _ in pairs[:1]]
            if not found:
                break
            place = found[0]
        return place.file, place.line, place.column


def _roots(source: Source) -> Iterator[_Spot]:
    """The root of a source's text, as much of it as can be read; nothing when there is none."""
    next_event = source.events()
    if next_event is None:
        return
    open_spots: list[_Spot] = []
    keys: list[tuple[str, _Spot] | None] = []
    root: _Spot | None = None
    event: Any
    try:
        while not isinstance(event := next_event(), StreamEndEvent):
            if isinstance(event, DocumentStartEvent) and root is not None:
                break
            if isinstance(event, CollectionEndEvent):
                open_spots.pop()
                keys.pop()
            if not isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent)):
                continue
            mark: Any = event.start_mark
            spot = _Spot(source.name, mark.line + 1, mark.column + 1)
            root = root or spot
            around = open_spots[-1] if open_spots else None
            if around is not None and around.items is not None:
                around.items.append(spot)
            elif around is not None and around.pairs is not None:
                key = keys[-1]
                if key is None:
                    keys[-1] = (event.value if isinstance(event, ScalarEvent) else "", spot)
                else:
                    around.pairs.append((*key, spot))
                    keys[-1] = None
            if not isinstance(event, ScalarEvent):
                spot.pairs, spot.items = ([], None) if isinstance(event, MappingStartEvent) else (None, [])
                open_spots.append(spot)
                keys.append(None)
    except yaml.YAMLError:
        pass
    if root is not None:
        yield root


def _values(spots: list[_Spot], key: str, *, exact: bool) -> Iterator[tuple[_Spot, _Spot]]:
    """The spots of a key and of what stands behind it, in each of some mappings; merged mappings come last."""
    wanted = key if exact else _folded(key)
    for spot in spots:
        pairs = spot.pairs or []
        own = [(at, value) for name, at, value in pairs if (name if exact else _folded(name)) == wanted]
        if own:
            yield own[0]
            continue
        for name, _, value in pairs:
            if name == "<<":
                yield from _values(value.items if value.items is not None else [value], key, exact=exact)


def _items(spots: list[_Spot], index: int) -> list[_Spot]:
    """The item at an index of lists that were put one behind the other; the first list is the last one here.

    What is no list stands for a list of one.
    """
    for spot in reversed(spots):
        items = spot.items if spot.items is not None else [spot]
        if index < len(items):
            return [items[index]]
        index -= len(items)
    return []


def _folded(key: str) -> str:
    return key.replace("_", "").lower()
