"""Protobuf on its way to frozen objects: who reads a field says so, and what nobody read is refused.

The builders of configuration objects read messages through `Node`. A field that is set and that no builder asked for
is one that Mizzen does not implement; `Context.finish` lists all of those, with every other problem, at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sidecar.config.context import Context
from sidecar.config.extensions import TYPED_STRUCTS, UnknownType, type_name_of
from sidecar.config.packed import unpack
from sidecar.config.problems import key_label

__all__ = ["Context", "Node", "plain_struct"]

_DENOMINATORS = {0: 100, 1: 10_000, 2: 1_000_000}

TYPE_URL_PREFIX = "type.googleapis.com/"


class _Field(NamedTuple):
    bit: int
    repeated: bool
    message: bool
    map: bool
    message_values: bool
    presence: bool
    descriptor: FieldDescriptor


_fields_by_type: dict[str, dict[str, _Field]] = {}


def _fields_of(descriptor: Any) -> dict[str, _Field]:
    fields = _fields_by_type.get(descriptor.full_name)
    if fields is None:
        fields = _fields_by_type[descriptor.full_name] = {
            field.name: _Field(
                1 << position,
                field.is_repeated,
                field.message_type is not None,
                _is_map(field),
                _is_map(field) and field.message_type.fields_by_name["value"].message_type is not None,
                field.has_presence,
                field,
            )
            for position, field in enumerate(descriptor.fields)
        }
    return fields


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


class Node:
    """One protobuf message on its way to a frozen object.

    It knows its place and which of its fields were read. Asking for a field by a name that the message has not got, or
    by a method that does not fit the field's type, raises LookupError or TypeError: that is a mistake in a builder.
    """

    __slots__ = ("_children", "_fields", "_label", "_parent", "_read", "context", "message")

    def __init__(self, message: Message, path: str, context: Context, *, parent: Node | None = None) -> None:
        self.message = message
        self.context = context
        self._fields = _fields_of(message.DESCRIPTOR)
        self._parent = parent
        self._label = path
        self._read = 0
        self._children: dict[str, Any] | None = None
        if parent is None:
            context.adopt(self)

    def __repr__(self) -> str:
        return f"<Node {self.type_name} at {self.path or 'the root'}>"

    @property
    def path(self) -> str:
        """The place of the message in its source, in protobuf field names."""
        labels = []
        node: Node | None = self
        while node is not None:
            labels.append(node._label)
            node = node._parent
        return "".join(reversed(labels)).removeprefix(".")

    def path_of(self, field: str | None) -> str:
        """The place of one of the message's fields, or of the message when `field` is None."""
        path = self.path
        return path if field is None else f"{path}.{field}" if path else field

    @property
    def type_name(self) -> str:
        """The message's full protobuf name."""
        return str(self.message.DESCRIPTOR.full_name)

    @property
    def type_url(self) -> str:
        """The message's full name as an Any spells it."""
        return TYPE_URL_PREFIX + self.type_name

    def has(self, name: str) -> bool:
        """Whether the field is set: present, or not empty, or not its type's default. Does not count as reading it."""
        field = self._field(name)
        if field.repeated:
            return len(getattr(self.message, name)) > 0
        if field.presence:
            return bool(self.message.HasField(name))
        return bool(getattr(self.message, name) != field.descriptor.default_value)

    def knows(self, name: str) -> bool:
        """Whether the message has a field of this name: messages that mean the same need not have the same fields."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """A scalar (enum values as numbers), or repeated scalars as a tuple."""
        field = self._take(name)
        if field.message:
            raise TypeError(f"{self.type_name}.{name} is a message")
        value = getattr(self.message, name)
        return tuple(value) if field.repeated else value

    def enum(self, name: str) -> str:
        """The name of an enum's value; the number in digits when the enum has no such value."""
        field = self._take(name)
        return _enum_name(field.descriptor, getattr(self.message, name))

    def enums(self, name: str) -> tuple[str, ...]:
        """The names of the values of a repeated enum."""
        field = self._take(name)
        return tuple(_enum_name(field.descriptor, number) for number in getattr(self.message, name))

    def wrapped(self, name: str, default: Any) -> Any:
        """The value in one of google.protobuf's wrappers (UInt32Value, BoolValue, ...)."""
        value = self._sub(name)
        return default if value is None else value.value

    def duration(self, name: str, default: float | None = None) -> float | None:
        """A google.protobuf.Duration, in seconds."""
        value = self._sub(name)
        return default if value is None else value.seconds + value.nanos / 1e9

    def percent(self, name: str, default: float) -> float:
        """An envoy.type.v3.Percent: 0 to 100."""
        value = self._sub(name)
        return default if value is None else value.value

    def fraction(self, name: str, default: tuple[int, int] | None = None) -> tuple[int, int] | None:
        """An envoy.type.v3.FractionalPercent as (numerator, denominator)."""
        value = self._sub(name)
        return default if value is None else (value.numerator, _DENOMINATORS[value.denominator])

    def runtime_fraction(self, name: str, default: tuple[int, int] | None = None) -> tuple[int, int] | None:
        """A RuntimeFractionalPercent as (numerator, denominator): its key's value in the runtime, or its default."""
        value = self._sub(name)
        if value is None:
            return default
        found = self.context.runtime.fraction(value.runtime_key)
        if found is not None:
            return found
        if not value.HasField("default_value"):
            return default
        return value.default_value.numerator, _DENOMINATORS[value.default_value.denominator]

    def runtime_value(self, name: str, default: Any = None) -> Any:
        """A RuntimeUInt32, RuntimeDouble, RuntimeFeatureFlag or RuntimePercent (0 to 100): its key's value in the
        runtime, or its default.
        """
        value = self._sub(name)
        if value is None:
            return default
        runtime = self.context.runtime
        readers = {"RuntimeUInt32": runtime.integer, "RuntimeFeatureFlag": runtime.flag}
        found = readers.get(value.DESCRIPTOR.name, runtime.number)(value.runtime_key)
        if found is not None:
            return found
        field = value.DESCRIPTOR.fields_by_name["default_value"]
        if field.message_type is None:
            return value.default_value
        return value.default_value.value if value.HasField("default_value") else default

    def child(self, name: str) -> Node | None:
        """The message in a singular field, or None when it is not set. Asked again, it gives the same Node."""
        field = self._take(name)
        if not field.message or field.repeated:
            raise TypeError(f"{self.type_name}.{name} is not one message")
        if not self.message.HasField(name):
            return None
        node: Node | None = self._made(name)
        return node or self._keep(name, Node(getattr(self.message, name), f".{name}", self.context, parent=self))

    def children(self, name: str) -> list[Node]:
        """The messages of a repeated field, in order."""
        field = self._take(name)
        if not field.message or not field.repeated or field.map:
            raise TypeError(f"{self.type_name}.{name} is not a list of messages")
        nodes: list[Node] | None = self._made(name)
        return nodes or self._keep(
            name,
            [
                Node(message, f".{name}[{position}]", self.context, parent=self)
                for position, message in enumerate(getattr(self.message, name))
            ],
        )

    def map(self, name: str) -> dict[str, Node]:
        """A map from keys to messages, in the order of its keys."""
        field = self._take(name)
        if not field.message_values:
            raise TypeError(f"{self.type_name}.{name} is not a map of messages")
        nodes: dict[str, Node] | None = self._made(name)
        return nodes or self._keep(
            name,
            {
                key: Node(message, f".{name}{key_label(key)}", self.context, parent=self)
                for key, message in sorted(getattr(self.message, name).items())
            },
        )

    def scalars_map(self, name: str) -> dict[Any, Any]:
        """A map from keys to scalars, in the order of its keys."""
        field = self._take(name)
        if not field.map or field.message_values:
            raise TypeError(f"{self.type_name}.{name} is not a map of scalars")
        return dict(sorted(getattr(self.message, name).items()))

    def which(self, oneof: str) -> str | None:
        """The name of the field that is set in a oneof. Does not count as reading it."""
        chosen: str | None = self.message.WhichOneof(oneof)
        return chosen

    def struct(self, name: str) -> dict[str, Any] | None:
        """A google.protobuf.Struct as plain Python; numbers without a fraction become int."""
        value = self._sub(name)
        return None if value is None else plain_struct(value)

    def any(self, name: str, known: Iterable[str] | None = None, *, structs: bool = False) -> Node | None:
        """The message inside a google.protobuf.Any field, or None when the field is not set or is refused.

        `known` are the full names of the messages that the caller implements: another one is a problem that lists them.
        With `structs` a TypedStruct that names no message of Envoy's comes as itself, whatever is in `known`.
        """
        packed = self.child(name)
        return None if packed is None else packed.unpacked(known, structs=structs)

    def unpacked(self, known: Iterable[str] | None = None, *, structs: bool = False) -> Node | None:
        """The message inside this google.protobuf.Any, as `any` gives it: for lists and maps of Any."""
        if self._children is not None:
            inside: Node | None = self._children["value"]
            return inside
        self._read = ~0
        inside = self._unpack(None if known is None else list(known), structs)
        self._keep("value", inside)
        return inside

    def _unpack(self, known: list[str] | None, structs: bool) -> Node | None:
        packed: Any = self.message
        try:
            message = unpack(packed)
        except UnknownType as error:
            self.refuse(str(error), "@type", f"known here: {', '.join(sorted(known))}" if known else error.what_to_do)
            return None
        except ValueError as error:
            self.refuse(str(error))
            return None
        type_name = message.DESCRIPTOR.full_name
        is_struct = type_name in TYPED_STRUCTS
        if known is not None and type_name not in known and not (is_struct and structs):
            advice = f"known here: {', '.join(sorted(known))}" if known else "remove it"
            if is_struct:
                type_name = f"a TypedStruct of {message.type_url!r}"
            self.refuse(f"{type_name} is not implemented by Mizzen", do=advice)
            return None
        converted = type_name_of(packed.type_url) in TYPED_STRUCTS and not is_struct
        return Node(message, ".value" if converted else "", self.context, parent=self)

    def extension(
        self, name: str = "typed_config", known: Iterable[str] | None = None, *, structs: bool = False
    ) -> Node | None:
        """The configuration of an extension, for messages shaped like TypedExtensionConfig: a name beside an Any.

        None when it is refused: because there is none, or as `any` does.
        """
        if "name" in self._fields:
            self._take("name")
        if not self.has(name):
            self._take(name)
            self.refuse("is required to tell which extension is meant", name, "set it, with the extension's @type")
            return None
        return self.any(name, known, structs=structs)

    def format(self, name: str) -> str:
        """A format string; what is wrong in it is refused."""
        text: str = self.get(name)
        self.context.check_format(self.path_of(name), text)
        return text

    def json_format(self, name: str) -> dict[str, Any]:
        """A JSON format, with the keys of every level in order, as Envoy writes them; what is wrong in it is refused."""
        structure = self.struct(name) or {}
        self.context.check_format(self.path_of(name), structure)
        return {key: _sorted(structure[key]) for key in sorted(structure)}

    def ignore(self, field: str, why: str) -> None:
        """Accept a field without effect. If it is set, one warning names it (one for all messages of this type)."""
        self._take(field)
        if self.has(field) and self.context.first_ignored(self.type_name, field):
            self.context.warn(self.path_of(field), f"is ignored: {why}")

    def disregard(self, field: str | None = None) -> None:
        """Accept a field, or the whole message, with all that is in it, unread: because nothing in it has an effect by
        what it means, or because one problem is named for all of it.
        """
        if field is None:
            self._read = ~0
        else:
            self._take(field)

    def refuse(self, problem: str, field: str | None = None, do: str | None = None) -> None:
        """Record a problem with this message, or with one of its fields. Building goes on, so that all are listed."""
        self.context.refuse(self.path_of(field), problem, do or "")

    def settle(self) -> None:
        """Refuse what was not read in this message and below, and let go of the Nodes below.

        `Context.finish` does it for everything; a builder of many large resources may do it after each, to save memory.
        """
        if self._read != ~0:
            for descriptor, _ in self.message.ListFields():
                field = self._fields[descriptor.name]
                if not self._read & field.bit:
                    self._read |= field.bit
                    self.refuse("is not implemented by Mizzen", descriptor.name, "remove it")
        if self._children:
            for made in self._children.values():
                if isinstance(made, Node):
                    made.settle()
                elif made:
                    for node in made.values() if isinstance(made, dict) else made:
                        node.settle()
            self._children.clear()

    def _field(self, name: str) -> _Field:
        try:
            return self._fields[name]
        except KeyError:
            raise LookupError(f"{self.type_name} has no field {name!r}") from None

    def _take(self, name: str) -> _Field:
        field = self._field(name)
        self._read |= field.bit
        return field

    def _sub(self, name: str) -> Any:
        self._take(name)
        return getattr(self.message, name) if self.message.HasField(name) else None

    def _made(self, name: str) -> Any:
        return None if self._children is None else self._children.get(name)

    def _keep(self, name: str, made: Any) -> Any:
        if self._children is None:
            self._children = {}
        self._children[name] = made
        return made


def plain_struct(struct: Any) -> dict[str, Any]:
    """A google.protobuf.Struct as plain Python; numbers without a fraction become int."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def _enum_name(field: FieldDescriptor, number: int) -> str:
    enum = field.enum_type
    if enum is None:
        raise TypeError(f"{field.full_name} is not an enum")
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name
