"""How a scalar in YAML or JSON becomes the value of a protobuf field: protobuf's JSON mapping, read as Envoy reads it.

Beyond the mapping Envoy takes YAML's spellings of booleans, hexadecimal and octal numbers, and the names of enum values
in any case. It does not take a bare number or boolean for a string; nor do we.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from sidecar.config.problems import did_you_mean

ScalarReader = Callable[[str, bool], Any]
"""From a scalar's text and whether it was plain (without quotes) to a field's value. Raises WrongValue."""


class WrongValue(ValueError):
    """A scalar does not fit its field: what the value must be, and perhaps what to do."""

    def __init__(self, problem: str, what_to_do: str = "") -> None:
        super().__init__(problem)
        self.what_to_do = what_to_do


NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {
    spelling: value
    for value, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_RADIX = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,40}|0[oO]?[0-7]{1,40})", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s", re.ASCII)
_SPECIAL_FLOATS = {
    "NaN": math.nan,
    ".nan": math.nan,
    ".NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
    ".inf": math.inf,
    "-.inf": -math.inf,
}
MAX_DURATION_SECONDS = 315_576_000_000
"""What google.protobuf.Duration holds: about 10,000 years."""

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def scalar_reader(field: FieldDescriptor) -> ScalarReader:
    """The reader for a scalar field, an element of a repeated scalar, or a map's key."""
    if field.cpp_type in _INTEGERS:
        return _integer_reader(*_INTEGERS[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _bytes if field.type == FieldDescriptor.TYPE_BYTES else _string
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_reader(field.enum_type)
    return _float


def map_key_reader(field: FieldDescriptor) -> ScalarReader:
    """The reader for a map's key: as for a field, but any scalar is a string."""
    reader = scalar_reader(field)
    return (lambda text, plain: text) if reader is _string else reader


def duration(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds of a duration such as "1.5s". Raises WrongValue."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[2]) > MAX_DURATION_SECONDS:
        raise WrongValue('must be a duration in seconds such as "0.25s" or "10s"')
    sign = -1 if match[1] else 1
    return sign * int(match[2]), sign * int((match[3] or "").ljust(9, "0"))


def timestamp(text: str) -> str:
    """A moment as RFC 3339 spells it, checked. Raises WrongValue."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise WrongValue('must be a time such as "2030-01-31T12:00:00Z"')
    return text


def plain_value(text: str) -> str | int | float | bool | None:
    """What a plain scalar means where no field says its type (google.protobuf.Value).

    Numbers that a double cannot hold exactly, and those JSON has not got, stay text.
    """
    if text in NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _DECIMAL.fullmatch(text) or _RADIX.fullmatch(text):
        number = _to_int(text, plain=True)
        return number if abs(number) <= 1 << 53 else text
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text


def _to_int(text: str, *, plain: bool) -> int:
    if _RADIX.fullmatch(text) and (plain or "x" in text.lower()):
        digits = text.lstrip("+-")
        number = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits.lstrip("0oO") or "0", 8)
        return -number if text[0] == "-" else number
    return int(text)


def _integer_reader(lowest: int, highest: int) -> ScalarReader:
    def read(text: str, plain: bool) -> int:
        if _DECIMAL.fullmatch(text) or _RADIX.fullmatch(text):
            number = _to_int(text, plain=plain)
        elif _FLOAT.fullmatch(text) and float(text).is_integer():
            number = int(float(text))
        else:
            number = highest + 1
        if not lowest <= number <= highest:
            raise WrongValue(f"must be a whole number from {lowest} to {highest}")
        return number

    return read


def _string(text: str, plain: bool) -> str:
    if plain:
        if text in _BOOLS:
            raise WrongValue("must be a string; put quotes around it")
        if _DECIMAL.fullmatch(text) and -(1 << 31) <= int(text) < 1 << 31:
            raise WrongValue("must be a string; put quotes around the number")
    return text


def _bytes(text: str, plain: bool) -> bytes:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise WrongValue("must be bytes in base64") from None


def _bool(text: str, plain: bool) -> bool:
    try:
        return _BOOLS[text]
    except KeyError:
        raise WrongValue("must be true or false") from None


def _float(text: str, plain: bool) -> float:
    if _FLOAT.fullmatch(text):
        return float(text)
    try:
        return _SPECIAL_FLOATS[text]
    except KeyError:
        raise WrongValue("must be a number") from None


def _enum_reader(enum: Any) -> ScalarReader:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda text, plain: 0
    numbers = {value.name.upper(): value.number for value in enum.values}
    names = [value.name for value in enum.values]

    def read(text: str, plain: bool) -> int:
        number: int | None = numbers.get(text.upper())
        if number is not None:
            return number
        if _DECIMAL.fullmatch(text) and -(1 << 31) <= int(text) < 1 << 31:
            return int(text)
        choice = f"one of {', '.join(names)}"
        raise WrongValue(f"must be {choice}", did_you_mean(text.upper(), names))

    return read
