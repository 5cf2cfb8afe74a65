"""Events of YAML into protobuf messages, directly: no tree in between, and every problem with its line.

The mapping is protobuf's JSON mapping, with what Envoy accepts beyond it: durations and wrappers may be spelt as the
messages that they are. Stricter than Envoy: a key that is given twice is refused. Looser: YAML's merge keys work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message
from yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from sidecar.config.events import NextEvent, is_mergeable, merged_pairs, rest_of, skip
from sidecar.config.extensions import TYPED_STRUCTS, UnknownType, message_class, type_name_of
from sidecar.config.json_mapping import NULLS, WrongValue, duration, plain_value, timestamp
from sidecar.config.left_out import WITHOUT_MESSAGES
from sidecar.config.problems import Problem, Where, did_you_mean, key_label, path_of
from sidecar.config.shapes import Entry, Kind, Shape, shape_of

MAX_DEPTH = 100
"""How deep messages may stand inside each other, as in protobuf's own parsers."""
TOO_DEEP = "is nested too deep for protobuf"


class Filling:
    """Fills messages from events, and adds to `problems` what does not fit; without `lines`, by its path only."""

    def __init__(self, next_event: NextEvent, file: str, problems: list[Problem], *, lines: bool = True) -> None:
        self._next = next_event
        self._file = file
        self._problems = problems
        self._lines = lines
        self._depth = 0

    def fill(self, event: Event, message: Message, where: Where = None) -> None:
        """Fill a message from the value that begins with `event`."""
        self._fill(event, shape_of(message.DESCRIPTOR), message, where)

    def refuse(self, event: Any, where: Where, problem: str, what_to_do: str = "") -> None:
        """Record a problem at an event."""
        line, column = (event.start_mark.line + 1, event.start_mark.column + 1) if self._lines else (0, 0)
        self._problems.append(Problem(self._file, line, column, path_of(where), problem, what_to_do))

    def _wrong(self, event: Event, where: Where, problem: str, what_to_do: str = "") -> None:
        if isinstance(event, AliasEvent):
            problem = f"refers to the anchor {event.anchor!r}, which is not defined before it"
        elif isinstance(event, ScalarEvent):
            problem = f"{problem}, not {_shortened(event.value)}"
        self.refuse(event, where, problem, what_to_do)
        skip(event, self._next)

    def _fill(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        special = _SPECIAL.get(shape.full_name)
        if special is not None:
            special(self, event, shape, message, where)
        elif type(event) is MappingStartEvent:
            self._mapping(event, shape, message, where)
        else:
            self._wrong(event, where, f"must be a mapping with the fields of {shape.full_name}")

    def _mapping(self, start: Event, shape: Shape, message: Any, where: Where) -> None:
        entries = shape.entries
        seen = 0
        for key, value in self._pairs(start, where, _field_label):
            entry = entries.get(key.value)
            if entry is None:
                advice = did_you_mean(key.value, shape.names, "remove it")
                self.refuse(key, (where, f".{key.value}"), f"is not a field of {shape.full_name}", advice)
                skip(value, self._next)
                continue
            place = (where, f".{entry.name}")
            kind = entry.kind
            if _is_null(value) and not (kind is Kind.MESSAGE and entry.shape.full_name == "google.protobuf.Value"):
                continue
            if seen & (entry.bit | entry.rivals):
                problem = "is given twice" if seen & entry.bit else f"is set beside another one of {entry.oneof}"
                self.refuse(key, place, problem, "keep one of them")
                skip(value, self._next)
                continue
            seen |= entry.bit
            if kind is Kind.SCALAR:
                if type(value) is ScalarEvent:
                    try:
                        setattr(message, entry.name, entry.read(value.value, value.implicit[0]))
                    except WrongValue as error:
                        self._wrong(value, place, str(error), error.what_to_do)
                    if value.tag is not None:
                        self._check_tag(value, place)
                else:
                    self._wrong(value, place, "must be one value")
            elif kind is Kind.MESSAGE:
                child = getattr(message, entry.name)
                self._fill(value, entry.shape, child, place)
                child.SetInParent()
            elif kind is Kind.MESSAGES:
                self._messages(value, entry, getattr(message, entry.name), place)
            elif kind is Kind.SCALARS:
                self._scalars(value, entry, getattr(message, entry.name), place)
            else:
                self._map(value, entry, getattr(message, entry.name), place)

    def _pairs(self, start: Event, where: Where, label: Callable[[str], str]) -> Iterator[tuple[Any, Event]]:
        """The keys of a mapping, each with the first event of its value, which must be read to its end before going on.

        Merge keys are followed; a key that is given twice is refused; so is what is nested too deep.
        """
        if self._depth >= MAX_DEPTH:
            self._wrong(start, where, TOO_DEEP)
            return
        self._depth += 1
        outside = next_event = self._next
        seen: set[str] = set()
        merged: list[list[Event]] = []
        while True:
            key = next_event()
            if type(key) is ScalarEvent:
                name = key.value
                if name in seen:
                    self.refuse(key, (where, label(name)), "is given twice", "remove one of them")
                    skip(next_event(), next_event)
                elif name == "<<" and key.implicit[0]:
                    value = rest_of(next_event(), next_event)
                    if is_mergeable(value):
                        merged.append(value)
                    else:
                        self.refuse(key, where, "merges something that is not a mapping", "write << before a mapping")
                else:
                    seen.add(name)
                    yield key, next_event()
            elif type(key) is not MappingEndEvent:
                self._wrong(key, where, "has a key that is not a name")
                skip(next_event(), next_event)
            elif merged:
                pairs = [pair for pair in merged_pairs(merged) if getattr(pair[0], "value", "") not in seen]
                merged = []
                next_event = self._next = iter([*(event for pair in pairs for event in pair), key]).__next__
            else:
                break
        self._next = outside
        self._depth -= 1

    def _messages(self, event: Event, entry: Entry, messages: Any, where: Where) -> None:
        for index, item in enumerate(self._items(event)):
            place = (where, f"[{index}]")
            if _is_null(item) and entry.shape.full_name != "google.protobuf.Value":
                self.refuse(item, place, "must not be null")
            else:
                self._fill(item, entry.shape, messages.add(), place)

    def _scalars(self, event: Event, entry: Entry, values: Any, where: Where) -> None:
        for index, item in enumerate(self._items(event)):
            self._scalar(item, entry, (where, f"[{index}]"), values.append)

    def _items(self, event: Event) -> Iterator[Event]:
        """The first events of a list's items, each to be read to its end. What is no list stands for a list of one."""
        if type(event) is not SequenceStartEvent:
            yield event
            return
        while type(item := self._next()) is not SequenceEndEvent:
            yield item

    def _map(self, event: Event, entry: Entry, values: Any, where: Where) -> None:
        if type(event) is not MappingStartEvent:
            self._wrong(event, where, "must be a mapping")
            return
        for key, value in self._pairs(event, where, key_label):
            place = (where, key_label(key.value))
            try:
                map_key = entry.read_key(key.value, key.implicit[0])
            except WrongValue as error:
                self._wrong(key, place, str(error), error.what_to_do)
                skip(value, self._next)
                continue
            if entry.kind is Kind.SCALAR_MAP:
                read: list[Any] = []
                self._scalar(value, entry, place, read.append)
                for item in read:
                    values[map_key] = item
            elif _is_null(value) and entry.shape.full_name != "google.protobuf.Value":
                self.refuse(value, place, "must not be null")
            else:
                self._fill(value, entry.shape, values[map_key], place)

    def _scalar(self, event: Event, entry: Entry, where: Where, use: Callable[[Any], object]) -> None:
        if type(event) is not ScalarEvent:
            self._wrong(event, where, "must be one value")
        elif _is_null(event):
            self.refuse(event, where, "must not be null")
        else:
            try:
                use(entry.read(event.value, event.implicit[0]))
            except WrongValue as error:
                self._wrong(event, where, str(error), error.what_to_do)
            self._check_tag(event, where)

    def _check_tag(self, event: ScalarEvent, where: Where) -> None:
        if event.tag is not None and not event.tag.startswith("tag:yaml.org,2002:"):
            self.refuse(event, where, f"has the tag {event.tag}, which means nothing here", "remove the tag")

    def _duration(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is MappingStartEvent:
            self._mapping(event, shape, message, where)
        elif type(event) is ScalarEvent:
            try:
                message.seconds, message.nanos = duration(event.value)
            except WrongValue as error:
                self._wrong(event, where, str(error), error.what_to_do)
        else:
            self._wrong(event, where, "must be a duration")

    def _as_text(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is not ScalarEvent:
            self._wrong(event, where, f"must be a {shape.full_name.rpartition('.')[2]}, as text")
            return
        try:
            is_time = shape.full_name == "google.protobuf.Timestamp"
            message.FromJsonString(timestamp(event.value) if is_time else event.value)
        except ValueError as error:
            self._wrong(event, where, str(error))

    def _wrapper(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is MappingStartEvent:
            self._mapping(event, shape, message, where)
        else:
            self._scalar(event, shape.entries["value"], where, lambda value: setattr(message, "value", value))

    def _struct(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is not MappingStartEvent:
            self._wrong(event, where, "must be a mapping")
            return
        for key, value in self._pairs(event, where, key_label):
            self._value(value, shape, message.fields[key.value], (where, key_label(key.value)))

    def _list_value(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is not SequenceStartEvent:
            self._wrong(event, where, "must be a list")
            return
        for index, item in enumerate(self._items(event)):
            self._value(item, shape, message.values.add(), (where, f"[{index}]"))

    def _value(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if self._depth > MAX_DEPTH - 2:
            self._wrong(event, where, TOO_DEEP)
        elif type(event) is MappingStartEvent:
            message.struct_value.SetInParent()
            self._depth += 2
            self._struct(event, shape, message.struct_value, where)
            self._depth -= 2
        elif type(event) is SequenceStartEvent:
            message.list_value.SetInParent()
            self._depth += 2
            self._list_value(event, shape, message.list_value, where)
            self._depth -= 2
        elif type(event) is ScalarEvent:
            plain = plain_value(event.value) if event.implicit[0] else event.value
            if plain is None:
                message.null_value = 0
            elif isinstance(plain, bool):
                message.bool_value = plain
            elif isinstance(plain, str):
                message.string_value = plain
            else:
                message.number_value = plain
        else:
            self._wrong(event, where, "must be a value")

    def _any(self, event: Event, shape: Shape, message: Any, where: Where) -> None:
        if type(event) is not MappingStartEvent:
            self._wrong(event, where, 'must be a mapping with an "@type"')
            return
        first, outside = self._next(), self._next
        if type(first) is ScalarEvent and first.value == "@type":
            type_event = self._next()
        else:
            type_event = self._take_type([event, *_to_end(first, self._next)])
        try:
            self._any_of_type(type_event, event, message, where)
        finally:
            self._next = outside

    def _take_type(self, mapping: list[Event]) -> Event | None:
        """Find an "@type" that is not the first key, and go on reading the mapping from its recording without it."""
        pairs = merged_pairs([mapping])
        for pair in pairs:
            if getattr(pair[0], "value", "") == "<<" and is_mergeable(pair[1:]):
                pairs += merged_pairs([pair[1:]])
        typed = next((pair for pair in pairs if getattr(pair[0], "value", "") == "@type"), None)
        rest = mapping[1:]
        if typed is not None and typed[0] in rest:
            position = rest.index(typed[0])
            del rest[position : position + len(typed)]
        self._next = iter(rest).__next__
        return typed[1] if typed else None

    def _any_of_type(self, type_event: Any, start: Event, message: Any, where: Where) -> None:
        place = (where, ".@type")
        if type(type_event) is not ScalarEvent or "/" not in type_event.value:
            self.refuse(type_event or start, place, "must be a type URL", 'write "type.googleapis.com/" and the type')
            _to_end(self._next(), self._next)
            return
        message.type_url = type_event.value
        if type_name_of(message.type_url) in WITHOUT_MESSAGES:
            _to_end(self._next(), self._next)
            return
        try:
            inner = message_class(type_name_of(message.type_url))()
        except UnknownType as error:
            self.refuse(type_event, place, str(error), error.what_to_do)
            _to_end(self._next(), self._next)
            return
        shape = shape_of(inner.DESCRIPTOR)
        if shape.full_name in _SPECIAL:
            for key, value in self._pairs(start, where, _field_label):
                if key.value == "value":
                    self._fill(value, shape, inner, (where, ".value"))
                else:
                    self.refuse(key, (where, f".{key.value}"), f"is not a field of {shape.full_name}", "remove it")
                    skip(value, self._next)
        elif shape.full_name in TYPED_STRUCTS:
            self._typed_struct(start, shape, inner, where)
        else:
            self._mapping(start, shape, inner, where)
        message.value = inner.SerializePartialToString()

    def _typed_struct(self, start: Event, shape: Shape, message: Any, where: Where) -> None:
        """Fill a TypedStruct; when it names a message that is known, its fields must fit that too."""
        recorded = [start, *_to_end(self._next(), self._next)]
        self._next = iter(recorded[1:]).__next__
        self._mapping(start, shape, message, where)
        try:
            inner = message_class(type_name_of(message.type_url))()
        except UnknownType:
            return
        for pair in merged_pairs([recorded]):
            if getattr(pair[0], "value", "") == "value":
                self._next = iter(pair[2:]).__next__
                self.fill(pair[1], inner, (where, ".value"))


def _to_end(event: Event, next_event: NextEvent) -> list[Event]:
    """The events from `event`, which follows a mapping's start or one of its pairs, to the mapping's end."""
    events: list[Event] = []
    while type(event) is not MappingEndEvent:
        events += rest_of(event, next_event)
        event = next_event()
    return [*events, event]


def _is_null(event: Event) -> bool:
    return type(event) is ScalarEvent and event.value in NULLS and bool(event.implicit[0])


def _field_label(name: str) -> str:
    return f".{name}"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


_SPECIAL: dict[str, Callable[[Filling, Event, Shape, Any, Where], None]] = {
    "google.protobuf.Any": Filling._any,
    "google.protobuf.Duration": Filling._duration,
    "google.protobuf.FieldMask": Filling._as_text,
    "google.protobuf.ListValue": Filling._list_value,
    "google.protobuf.Struct": Filling._struct,
    "google.protobuf.Timestamp": Filling._as_text,
    "google.protobuf.Value": Filling._value,
    **{
        f"google.protobuf.{kind}Value": Filling._wrapper
        for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
    },
}
