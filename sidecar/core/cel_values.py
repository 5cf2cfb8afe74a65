"""The values of CEL and what its operators and functions make of them.

Integers are ``int`` (64 bits, checked), ``Uint``, and ``float`` for doubles; texts are ``str``, points in time
``Timestamp`` and lengths of time ``Duration``, in nanoseconds. Maps are anything with ``find``, see ``CelMap``. Every
function raises ``CelError`` where CEL's evaluation ends in an error. Source: the CEL language definition, section
"Standard definitions"; numbers of different types are comparable, as in Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.config.cel import Duration, Timestamp, Uint

_MIN, _MAX, _UMAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
LONGEST = 1 << 16
"""The largest string or list that may be put together, in characters or elements."""

_LONGEST_TIME = 315_576_000_000 * 1_000_000_000
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000_000, 253_402_300_799_999_999_999


class CelError(Exception):
    """The evaluation ended in an error."""


class CelType:
    """A type as a value: what ``type(x)`` gives."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CelType) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name


class CelMap:
    """A map. Keys are compared as CEL does: ``true`` is not 1, and 1, 1u and 1.0 are the same."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Any = ()) -> None:
        self._entries: dict[Any, tuple[Any, Any]] = {}
        for key, value in entries:
            if isinstance(key, float) or not isinstance(key, bool | int | str):
                raise CelError("a map's keys are booleans, integers and strings")
            place = _place(key)
            if place in self._entries:
                raise CelError("a map has a key twice")
            self._entries[place] = (key, value)

    def find(self, key: Any) -> Any:
        """The value under a key. Raises CelError without one."""
        try:
            return self._entries[_place(key)][1]
        except (KeyError, TypeError):
            raise CelError(f"no such key: {key!r}") from None

    def has(self, key: Any) -> bool:
        """Whether there is such a key."""
        try:
            return _place(key) in self._entries
        except TypeError:
            raise CelError("no such overload") from None

    def keys(self) -> list[Any]:
        """Its keys in their order."""
        return [key for key, _ in self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())


class StructMap:
    """A map of metadata. Its numbers are doubles, as all numbers in JSON."""

    __slots__ = ("_struct",)

    def __init__(self, struct: Any) -> None:
        self._struct = struct

    def find(self, key: Any) -> Any:
        """The value under a key. Raises CelError without one."""
        if not isinstance(key, str) or key not in self._struct:
            raise CelError(f"no such key: {key!r}")
        return from_json(self._struct[key])

    def has(self, key: Any) -> bool:
        """Whether there is such a key."""
        return isinstance(key, str) and key in self._struct

    def keys(self) -> list[Any]:
        """Its keys in their order."""
        return list(self._struct)

    def __len__(self) -> int:
        return len(self._struct)


def from_json(value: Any) -> Any:
    """A value of metadata as CEL sees it."""
    if isinstance(value, dict):
        return StructMap(value)
    if isinstance(value, list | tuple):
        return [from_json(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def is_map(value: Any) -> bool:
    """Whether a value is one of the kinds of maps."""
    return hasattr(value, "find") and not isinstance(value, str | bytes)


def _place(key: Any) -> Any:
    if isinstance(key, bool):
        return ("bool", key)
    if isinstance(key, Timestamp | Duration):
        raise TypeError
    return key


def kind_of(value: Any) -> str:
    """The name of a value's type."""
    match value:
        case bool():
            return "bool"
        case Uint():
            return "uint"
        case Timestamp():
            return "google.protobuf.Timestamp"
        case Duration():
            return "google.protobuf.Duration"
        case int():
            return "int"
        case float():
            return "double"
        case str():
            return "string"
        case bytes():
            return "bytes"
        case None:
            return "null_type"
        case list():
            return "list"
        case CelType():
            return "type"
    return "map"


_NUMBERS = (int, Uint, float)


def _integer(value: int) -> int:
    if not _MIN <= value <= _MAX:
        raise CelError("integer overflow")
    return value


def unsigned(value: int) -> Uint:
    """A number as an unsigned integer. Raises CelError if it is none of 64 bits."""
    if not 0 <= value <= _UMAX:
        raise CelError("unsigned integer overflow")
    return Uint(value)


def duration(value: int) -> Duration:
    """Nanoseconds as a duration. Raises CelError beyond 10,000 years."""
    if not -_LONGEST_TIME <= value <= _LONGEST_TIME:
        raise CelError("a duration out of range")
    return Duration(value)


def timestamp(value: int) -> Timestamp:
    """Nanoseconds since 1970 as a timestamp. Raises CelError outside the years 1 to 9999."""
    if not _FIRST_TIME <= value <= _LAST_TIME:
        raise CelError("a timestamp out of range")
    return Timestamp(value)


def _no_overload(function: str, *values: Any) -> CelError:
    return CelError(f"no such overload: {function}({', '.join(map(kind_of, values))})")


def equal(one: Any, other: Any) -> bool:
    """`==`: false between values of different types, but for numbers."""
    first, second = type(one), type(other)
    if first is second:
        if first is list:
            return len(one) == len(other) and all(map(equal, one, other))
        if first not in (CelMap, StructMap):
            return bool(one == other)
    if first in _NUMBERS and second in _NUMBERS:
        return bool(one == other)
    if is_map(one) and is_map(other):
        return len(one) == len(other) and all(
            other.has(key) and equal(one.find(key), other.find(key))
            for key in one.keys()  # noqa: SIM118 - a map of CEL is no dict
        )
    return False


_ORDERED = frozenset((bool, str, bytes, Timestamp, Duration))


def _comparable(function: str, one: Any, other: Any) -> None:
    first, second = type(one), type(other)
    if not (first in _NUMBERS and second in _NUMBERS) and not (first is second and first in _ORDERED):
        raise _no_overload(function, one, other)


def less(one: Any, other: Any) -> bool:
    """`<`."""
    _comparable("<", one, other)
    return bool(one < other)


def less_equal(one: Any, other: Any) -> bool:
    """`<=`."""
    _comparable("<=", one, other)
    return bool(one <= other)


def greater(one: Any, other: Any) -> bool:
    """`>`."""
    _comparable(">", one, other)
    return bool(one > other)


def greater_equal(one: Any, other: Any) -> bool:
    """`>=`."""
    _comparable(">=", one, other)
    return bool(one >= other)


def add(one: Any, other: Any) -> Any:
    """`+` between numbers and times."""
    match one, other:
        case (float(), float()):
            return one + other
        case (Timestamp(), Duration()) | (Duration(), Timestamp()):
            return timestamp(int(one) + int(other))
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return _integer(one + other)
        if kind is Uint:
            return unsigned(int(one) + int(other))
        if kind is Duration:
            return duration(int(one) + int(other))
    raise _no_overload("+", one, other)


def concatenate(one: Any, other: Any) -> Any:
    """`+` between strings as well."""
    kind = type(one)
    if kind is type(other) and (kind is str or kind is bytes):
        if len(one) + len(other) > LONGEST:
            raise CelError("a string grows too long")
        return one + other
    return add(one, other)


def concatenate_lists(one: Any, other: Any) -> Any:
    """`+` between lists as well, as macros need it."""
    if type(one) is list and type(other) is list:
        if len(one) + len(other) > LONGEST:
            raise CelError("a list grows too long")
        return one + other
    return concatenate(one, other)


def subtract(one: Any, other: Any) -> Any:
    """`-`."""
    match one, other:
        case (float(), float()):
            return one - other
        case (Timestamp(), Timestamp()):
            return duration(int(one) - int(other))
        case (Timestamp(), Duration()):
            return timestamp(int(one) - int(other))
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return _integer(one - other)
        if kind is Uint:
            return unsigned(int(one) - int(other))
        if kind is Duration:
            return duration(int(one) - int(other))
    raise _no_overload("-", one, other)


def multiply(one: Any, other: Any) -> Any:
    """`*`."""
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return _integer(one * other)
        if kind is Uint:
            return unsigned(int(one) * int(other))
        if kind is float:
            return one * other
    raise _no_overload("*", one, other)


def divide(one: Any, other: Any) -> Any:
    """`/`: integers towards zero."""
    kind = type(one)
    if kind is type(other):
        if kind is float:
            if other == 0.0:
                negative = (str(one)[0] == "-") != (str(other)[0] == "-")
                return float("nan") if one == 0.0 or one != one else float("-inf" if negative else "inf")
            return one / other
        if kind is int or kind is Uint:
            if other == 0:
                raise CelError("division by zero")
            quotient = abs(int(one)) // abs(int(other))
            return unsigned(quotient) if kind is Uint else _integer(quotient if (one < 0) == (other < 0) else -quotient)
    raise _no_overload("/", one, other)


def modulo(one: Any, other: Any) -> Any:
    """`%`: with the sign of the first."""
    kind = type(one)
    if kind is type(other) and (kind is int or kind is Uint):
        if other == 0:
            raise CelError("modulus by zero")
        if kind is Uint:
            return Uint(int(one) % int(other))
        if one == _MIN and other == -1:
            raise CelError("integer overflow")
        rest = abs(one) % abs(other)
        return -rest if one < 0 else rest
    raise _no_overload("%", one, other)


def negate(value: Any) -> Any:
    """`-x`."""
    kind = type(value)
    if kind is int:
        return _integer(-value)
    if kind is float:
        return -value
    raise _no_overload("-", value)


def index(container: Any, key: Any) -> Any:
    """`container[key]`."""
    if type(container) is list:
        if type(key) is float and key.is_integer():
            key = int(key)
        if type(key) not in (int, Uint):
            raise _no_overload("[]", container, key)
        if not 0 <= key < len(container):
            raise CelError(f"index out of range: {key}")
        return container[key]
    if is_map(container):
        return container.find(key)
    raise _no_overload("[]", container, key)


def contained(value: Any, container: Any) -> bool:
    """`value in container`."""
    if type(container) is list:
        return any(equal(value, one) for one in container)
    if is_map(container):
        return bool(container.has(value))
    raise _no_overload("in", value, container)


def size(value: Any) -> int:
    """The characters of a string, the bytes of bytes, the elements of a list or map."""
    if isinstance(value, str | bytes | list) or is_map(value):
        return len(value)
    raise _no_overload("size", value)
