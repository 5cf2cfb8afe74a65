"""YAML (of which JSON is a part) as a stream of events, with anchors played back where they are referred to.

Events are read one by one and never become a tree: a large configuration costs little more memory than its messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

MAX_ALIASED = 32 * 1024 * 1024
"""What the aliases of one document may expand to, counting each event as 64 bytes and each scalar's characters."""

NextEvent = Callable[[], Any]


MAX_NESTING = 1000
"""How deep collections may stand inside each other where they are only read past: libyaml takes time as its square."""


class TooDeep(yaml.YAMLError):
    """Collections are nested deeper than MAX_NESTING."""

    def __init__(self, mark: Any) -> None:
        super().__init__(f"it is nested more than {MAX_NESTING} levels deep")
        self.problem_mark = mark

    @classmethod
    def instead_of(cls, error: yaml.YAMLError) -> yaml.YAMLError:
        """`error`, or what it means: from 0.2.6 libyaml gives up at this depth of its own, and tells of its inner state."""
        if "maximum nesting depth" in (getattr(error, "problem", None) or ""):
            return cls(getattr(error, "problem_mark", None))
        return error


class AliasBomb(yaml.YAMLError):
    """The aliases of a document expand to more than MAX_ALIASED."""

    def __init__(self, mark: Any) -> None:
        super().__init__(f"the aliases expand to more than {MAX_ALIASED // (1024 * 1024)} MiB")
        self.problem_mark = mark


def events_of(data: bytes) -> NextEvent:
    """A function that gives the next event of a document, or raises yaml.YAMLError."""
    next_event: NextEvent = yaml.CSafeLoader(data).get_event
    return _Anchors(next_event).__next__ if b"&" in data else next_event


class _Anchors(Iterator[Event]):
    """Remembers what was anchored and gives it again in place of an alias. An unknown alias is passed on as it is."""

    def __init__(self, next_event: NextEvent) -> None:
        self._next_event = next_event
        self._anchored: dict[str, list[Event]] = {}
        self._recordings: list[tuple[str, list[Event], int]] = []
        self._depth = 0
        self._replays: list[Iterator[Event]] = []
        self._aliased = 0

    def __next__(self) -> Event:
        while self._replays:
            event = next(self._replays[-1], None)
            if event is None:
                self._replays.pop()
                continue
            self._aliased += 64 + (len(event.value) if isinstance(event, ScalarEvent) else 0)
            if self._aliased > MAX_ALIASED:
                raise AliasBomb(event.start_mark)
            return self._record(event, None)
        event = self._next_event()
        if isinstance(event, AliasEvent):
            anchored = self._anchored.get(event.anchor or "")
            if anchored is None:
                return self._record(event, None)
            self._replays.append(iter(anchored))
            return self.__next__()
        return self._record(event, getattr(event, "anchor", None))

    def _record(self, event: Event, anchor: str | None) -> Event:
        if anchor is not None:
            self._recordings.append((anchor, [], self._depth))
        for _, recorded, _ in self._recordings:
            recorded.append(event)
        if isinstance(event, CollectionStartEvent):
            self._depth += 1
        elif isinstance(event, CollectionEndEvent):
            self._depth -= 1
        while self._recordings and self._recordings[-1][2] == self._depth:
            name, recorded, _ = self._recordings.pop()
            self._anchored[name] = recorded
        return event


def rest_of(event: Event, next_event: NextEvent) -> list[Event]:
    """The events of the value that begins with `event`, read to its end."""
    events = [event]
    depth = int(isinstance(event, CollectionStartEvent))
    while depth:
        event = next_event()
        events.append(event)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_NESTING:
            raise TooDeep(event.start_mark)
    return events


def skip(event: Event, next_event: NextEvent) -> None:
    """Read past the value that begins with `event`."""
    depth = int(isinstance(event, CollectionStartEvent))
    while depth:
        event = next_event()
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_NESTING:
            raise TooDeep(event.start_mark)


def pairs_of(mapping: list[Event]) -> list[list[Event]]:
    """The pairs of a recorded mapping: for each, the key's event and the value's events."""
    inside = iter(mapping[1:-1])
    pairs = []
    for key in inside:
        pair = rest_of(key, inside.__next__)
        value = next(inside)
        pairs.append([*pair, *rest_of(value, inside.__next__)])
    return pairs


def is_mergeable(value: list[Event]) -> bool:
    """Whether a value may stand behind YAML's merge key `<<`: a mapping, or a list of mappings."""
    return all(isinstance(mapping[0], MappingStartEvent) for mapping in _mappings(value))


def merged_pairs(values: list[list[Event]]) -> list[list[Event]]:
    """The pairs that the mappings behind merge keys bring, the first mapping that has a key winning."""
    pairs: dict[str, list[Event]] = {}
    for value in values:
        for mapping in _mappings(value):
            for pair in pairs_of(mapping):
                pairs.setdefault(getattr(pair[0], "value", ""), pair)
    return list(pairs.values())


def _mappings(value: list[Event]) -> list[list[Event]]:
    if not isinstance(value[0], SequenceStartEvent):
        return [value]
    inside = iter(value[1:-1])
    return [rest_of(event, inside.__next__) for event in inside]
