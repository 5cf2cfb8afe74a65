"""The functions of CEL that have names: conversions, texts, times. See ``sidecar.core.cel_values`` for the operators.

Source: the CEL language definition, sections "Standard definitions" and "Strings extension".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.config.cel import Duration, Timestamp, Uint
from sidecar.core.cel_values import LONGEST, CelError, CelType, duration, kind_of, size, timestamp, unsigned

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_REGEX = 100
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DOUBLE = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|inf(inity)?|nan)", re.I | re.A
)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3600 * _SECOND, "m": 60 * _SECOND, "s": _SECOND, "ms": 1_000_000, "us": 1000, "ns": 1}
_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)", re.ASCII)


def _no(function: str, *values: Any) -> CelError:
    return CelError(f"no such overload: {function}({', '.join(map(kind_of, values))})")


def to_int(value: Any) -> int:
    """`int(x)`."""
    match value:
        case bool():
            raise _no("int", value)
        case Timestamp():
            return int(value) // _SECOND
        case Duration():
            raise _no("int", value)
        case int():
            number = int(value)
        case float():
            if not -9223372036854775808.0 < value < 9223372036854775808.0:
                raise CelError("a double out of the range of integers")
            number = int(value)
        case str():
            if not _INTEGER.fullmatch(value) or len(value) > 40:
                raise CelError("a string that is no integer")
            number = int(value)
        case _:
            raise _no("int", value)
    if not -(1 << 63) <= number < 1 << 63:
        raise CelError("integer overflow")
    return number


def to_uint(value: Any) -> Uint:
    """`uint(x)`."""
    match value:
        case bool() | Timestamp() | Duration():
            raise _no("uint", value)
        case int():
            return unsigned(int(value))
        case float():
            if not 0.0 <= value < 18446744073709551616.0:
                raise CelError("a double out of the range of unsigned integers")
            return Uint(int(value))
        case str():
            if not _INTEGER.fullmatch(value) or len(value) > 40:
                raise CelError("a string that is no unsigned integer")
            return unsigned(int(value))
    raise _no("uint", value)


def to_double(value: Any) -> float:
    """`double(x)`."""
    match value:
        case bool() | Timestamp() | Duration():
            raise _no("double", value)
        case int() | float():
            return float(value)
        case str():
            if not _DOUBLE.fullmatch(value):
                raise CelError("a string that is no number")
            return float(value)
    raise _no("double", value)


_BOOLEANS = {"true": True, "TRUE": True, "True": True, "t": True, "1": True,
             "false": False, "FALSE": False, "False": False, "f": False, "0": False}  # fmt: skip


def to_bool(value: Any) -> bool:
    """`bool(x)`."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value not in _BOOLEANS:
            raise CelError("a string that is no boolean")
        return _BOOLEANS[value]
    raise _no("bool", value)


def to_bytes(value: Any) -> bytes:
    """`bytes(x)`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    raise _no("bytes", value)


def to_string(value: Any) -> str:
    """`string(x)`."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise CelError("bytes that are no UTF-8") from None
        case Timestamp():
            whole, rest = divmod(int(value), _SECOND)
            text = (_EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
            return f"{text}{_fraction(rest)}Z"
        case Duration():
            sign, nanoseconds = "-" if value < 0 else "", abs(int(value))
            return f"{sign}{nanoseconds // _SECOND}{_fraction(nanoseconds % _SECOND)}s"
        case int():
            return str(int(value))
        case float():
            return "inf" if value == math.inf else "-inf" if value == -math.inf else f"{value:.6g}"
    raise _no("string", value)


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""


def to_timestamp(value: Any) -> Timestamp:
    """`timestamp(x)` of a string by RFC 3339 or of seconds since 1970."""
    if isinstance(value, Timestamp):
        return value
    if type(value) is int:
        return timestamp(value * _SECOND)
    if not isinstance(value, str):
        raise _no("timestamp", value)
    found = _TIME.fullmatch(value)
    if found is None:
        raise CelError("a string that is no time")
    year, month, day, hour, minute, second = (int(found[number]) for number in range(1, 7))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise CelError("a string that is no time") from None
    nanoseconds = int((moment - _EPOCH).total_seconds()) * _SECOND + int((found[7] or "0").ljust(9, "0"))
    zone = found[8]
    if zone not in ("Z", "z"):
        offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * 60 * _SECOND
        nanoseconds -= offset if zone[0] == "+" else -offset
    return timestamp(nanoseconds)


def to_duration(value: Any) -> Duration:
    """`duration(x)` of a string such as `1h30m` or `-1.5s`."""
    if isinstance(value, Duration):
        return value
    if not isinstance(value, str):
        raise _no("duration", value)
    text = value[1:] if value[:1] in ("-", "+") else value
    if text == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(text):
        found = _DURATION_PART.match(text, at)
        if found is None or len(found[1]) > 30:
            raise CelError("a string that is no duration")
        whole, _, fraction = found[1].partition(".")
        unit = _UNITS[found[2]]
        total += int(whole or "0") * unit
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
        at = found.end()
    if not text:
        raise CelError("a string that is no duration")
    return duration(-total if value[0] == "-" else total)


def type_of(value: Any) -> CelType:
    """`type(x)`."""
    return CelType(kind_of(value))


def contains(text: Any, part: Any) -> bool:
    """`text.contains(part)`."""
    if isinstance(text, str) and isinstance(part, str):
        return part in text
    raise _no("contains", text, part)


def starts_with(text: Any, part: Any) -> bool:
    """`text.startsWith(part)`."""
    if isinstance(text, str) and isinstance(part, str):
        return text.startswith(part)
    raise _no("startsWith", text, part)


def ends_with(text: Any, part: Any) -> bool:
    """`text.endsWith(part)`."""
    if isinstance(text, str) and isinstance(part, str):
        return text.endswith(part)
    raise _no("endsWith", text, part)


@lru_cache(maxsize=1024)
def compile_regex(regex: str) -> Callable[[str], Any]:
    """What searches a text for an RE2 expression. Raises CelError if RE2 does not take it, or it is too large."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(regex, options)
    except re2.error:
        raise CelError("no regular expression for RE2") from None
    if compiled.programsize > _LARGEST_REGEX:
        raise CelError(f"a regular expression that is larger than {_LARGEST_REGEX}")
    search: Callable[[str], Any] = compiled.search
    return search


def matches(text: Any, regex: Any) -> bool:
    """`text.matches(regex)`: whether the expression is found anywhere in the text."""
    if isinstance(text, str) and isinstance(regex, str):
        return compile_regex(regex)(text) is not None
    raise _no("matches", text, regex)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    found = _OFFSET.fullmatch(name)
    if found is not None:
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise CelError(f"no such time zone: {name!r}") from None


def _of_moment(part: Callable[[datetime], int]) -> Callable[..., int]:
    def get(value: Any, zone: Any = "UTC") -> int:
        if not isinstance(value, Timestamp) or not isinstance(zone, str):
            raise _no("a part of a time", value, zone)
        try:
            return part((_EPOCH + timedelta(seconds=int(value) // _SECOND)).astimezone(_zone(zone)))
        except OverflowError:
            raise CelError("a time out of range") from None

    return get


def _of_time(of_moment: Callable[[datetime], int], unit: int) -> Callable[..., int]:
    from_moment = _of_moment(of_moment)

    def get(value: Any, *zone: Any) -> int:
        if isinstance(value, Duration) and not zone:
            return int(value) // unit if value >= 0 else -(-int(value) // unit)
        return from_moment(value, *zone)

    return get


def _milliseconds(value: Any, *zone: Any) -> int:
    if isinstance(value, Duration) and not zone:
        return (abs(int(value)) % _SECOND) // 1_000_000 * (1 if value >= 0 else -1)
    if isinstance(value, Timestamp) and all(isinstance(one, str) for one in zone):
        return int(value) % _SECOND // 1_000_000
    raise _no("getMilliseconds", value, *zone)


def _texts(function: str, *values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise _no(function, *values)


def _number(function: str, value: Any) -> int:
    if type(value) is not int:
        raise _no(function, value)
    return value


def _lower(text: Any) -> str:
    _texts("lowerAscii", text)
    return "".join(letter.lower() if "A" <= letter <= "Z" else letter for letter in text)


def _upper(text: Any) -> str:
    _texts("upperAscii", text)
    return "".join(letter.upper() if "a" <= letter <= "z" else letter for letter in text)


def _trim(text: Any) -> str:
    _texts("trim", text)
    return str(text.strip())


def _replace(text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    _texts("replace", text, old, new)
    count = _number("replace", limit)
    times = text.count(old) if count < 0 else min(count, text.count(old))
    if len(text) + times * len(new) > LONGEST:
        raise CelError("a string grows too long")
    return str(text.replace(old, new, count))


def _split(text: Any, by: Any, limit: Any = -1) -> list[str]:
    _texts("split", text, by)
    count = _number("split", limit)
    if count == 0:
        return []
    if not by:
        letters = list(text)
        return letters if count < 0 or count >= len(letters) else [*letters[: count - 1], "".join(letters[count - 1 :])]
    return list(text.split(by, count - 1 if count > 0 else -1))


def _join(parts: Any, by: Any = "") -> str:
    if type(parts) is not list:
        raise _no("join", parts)
    _texts("join", by, *parts)
    if sum(map(len, parts)) + len(by) * len(parts) > LONGEST:
        raise CelError("a string grows too long")
    return str(by.join(parts))


def _index_of(text: Any, part: Any, start: Any = 0) -> int:
    _texts("indexOf", text, part)
    if not 0 <= _number("indexOf", start) <= len(text):
        raise CelError("index out of range")
    return int(text.find(part, start))


def _last_index_of(text: Any, part: Any, start: Any = None) -> int:
    _texts("lastIndexOf", text, part)
    if start is None:
        return int(text.rfind(part))
    if not 0 <= _number("lastIndexOf", start) <= len(text):
        raise CelError("index out of range")
    return int(text.rfind(part, 0, start + len(part)))


def _substring(text: Any, start: Any, end: Any = None) -> str:
    _texts("substring", text)
    last = len(text) if end is None else _number("substring", end)
    if not 0 <= _number("substring", start) <= last <= len(text):
        raise CelError("index out of range")
    return str(text[start:last])


def _char_at(text: Any, at: Any) -> str:
    _texts("charAt", text)
    if not 0 <= _number("charAt", at) <= len(text):
        raise CelError("index out of range")
    return str(text[at : at + 1])


def _reverse(text: Any) -> str:
    _texts("reverse", text)
    return str(text[::-1])


FUNCTIONS: dict[tuple[str, bool, int], Callable[..., Any]] = {
    ("int", False, 1): to_int,
    ("uint", False, 1): to_uint,
    ("double", False, 1): to_double,
    ("bool", False, 1): to_bool,
    ("bytes", False, 1): to_bytes,
    ("timestamp", False, 1): to_timestamp,
    ("duration", False, 1): to_duration,
    ("type", False, 1): type_of,
    ("dyn", False, 1): lambda value: value,
    ("size", False, 1): size,
    ("size", True, 1): size,
    ("contains", True, 2): contains,
    ("startsWith", True, 2): starts_with,
    ("endsWith", True, 2): ends_with,
    ("matches", True, 2): matches,
    ("matches", False, 2): matches,
}
"""By name, whether it is called on a target, and how many arguments it takes (the target is one)."""

for _name, _get in {
    "getFullYear": _of_moment(lambda moment: moment.year),
    "getMonth": _of_moment(lambda moment: moment.month - 1),
    "getDayOfMonth": _of_moment(lambda moment: moment.day - 1),
    "getDate": _of_moment(lambda moment: moment.day),
    "getDayOfWeek": _of_moment(lambda moment: moment.isoweekday() % 7),
    "getDayOfYear": _of_moment(lambda moment: moment.timetuple().tm_yday - 1),
    "getHours": _of_time(lambda moment: moment.hour, 3600 * _SECOND),
    "getMinutes": _of_time(lambda moment: moment.minute, 60 * _SECOND),
    "getSeconds": _of_time(lambda moment: moment.second, _SECOND),
    "getMilliseconds": _milliseconds,
}.items():
    FUNCTIONS[_name, True, 1] = FUNCTIONS[_name, True, 2] = _get

STRING_CONVERSION: dict[tuple[str, bool, int], Callable[..., Any]] = {("string", False, 1): to_string}
"""What `enable_string_conversion` adds."""

STRING_FUNCTIONS: dict[tuple[str, bool, int], Callable[..., Any]] = {
    ("lowerAscii", True, 1): _lower,
    ("upperAscii", True, 1): _upper,
    ("trim", True, 1): _trim,
    ("replace", True, 3): _replace,
    ("replace", True, 4): _replace,
    ("split", True, 2): _split,
    ("split", True, 3): _split,
    ("join", True, 1): _join,
    ("join", True, 2): _join,
    ("indexOf", True, 2): _index_of,
    ("indexOf", True, 3): _index_of,
    ("lastIndexOf", True, 2): _last_index_of,
    ("lastIndexOf", True, 3): _last_index_of,
    ("substring", True, 2): _substring,
    ("substring", True, 3): _substring,
    ("charAt", True, 2): _char_at,
    ("reverse", True, 1): _reverse,
}
"""What `enable_string_functions` adds."""
