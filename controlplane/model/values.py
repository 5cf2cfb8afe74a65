"""The kinds of values that resources are made of, as types: what they may be, and what is said of those that are wrong."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final

import re2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from controlplane.model.causes import Reason


def wrong(message: str, reason: Reason = Reason.INVALID) -> PydanticCustomError:
    """What a validator raises: a cause of that message and reason, at the field that is judged."""
    return PydanticCustomError(reason.value, message)  # type: ignore[arg-type]


def shown(value: Any) -> str:
    """A value as messages quote it, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) > 1 << 64:
        return "a number of more than 64 bits"  # some are too long to be written out
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 80 else text[:76] + '..."'


# --- Durations. Istio reads Go's form ("1h15m", "1.5s", "20ms"), of which protobuf's JSON form ("1.5s") is a part.

_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)


def duration_seconds(text: Any) -> float:
    """Seconds of a duration as Istio writes it. Raises a pydantic error that says how to write it."""
    if isinstance(text, float):
        return text  # a model that is made in Python gives seconds
    if not isinstance(text, str):
        raise wrong(f'must be a duration in quotes, such as "1.5s" or "20ms", not {shown(text)}')
    end, seconds = 0, 0.0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end:
            break
        end = part.end()
        seconds += float(part[1]) * _DURATION_UNITS[part[2]]
    if not text or end != len(text):
        if text == "0":
            return 0.0
        raise wrong(
            f'{shown(text)} is not a duration: write a number with a unit (h, m, s, ms), such as "1.5s" or "20ms"'
        )
    if seconds > 315576000000:
        raise wrong(f"{shown(text)} is longer than 10,000 years: write a shorter duration")
    return seconds


def _at_least_a_millisecond(seconds: float) -> float:
    if seconds < 0.001:
        raise wrong(f"a duration must be at least 1ms, not {seconds:g}s")
    return seconds


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "description": 'A duration, such as "1.5s", "20ms" or "1h".'})

Duration = Annotated[
    float, BeforeValidator(duration_seconds), AfterValidator(_at_least_a_millisecond), _DURATION_SCHEMA
]
"""Seconds, at least 0.001."""
DurationOrZero = Annotated[float, BeforeValidator(duration_seconds), _DURATION_SCHEMA]
"""Seconds, or 0, which switches off what it would bound."""


# --- Numbers


def _within(low: int | float, high: int | float, what: str) -> AfterValidator:
    def judge(value: Any) -> Any:
        if not low <= value <= high:
            raise wrong(f"{what} must be from {low} to {high}, not {shown(value)}")
        return value

    return AfterValidator(judge)


def _bounds(low: int, high: int, type_: str = "integer") -> WithJsonSchema:
    return WithJsonSchema({"type": type_, "minimum": low, "maximum": high})


Int = Annotated[StrictInt, _within(-(2**31), 2**31 - 1, "the number"), WithJsonSchema({"type": "integer"})]
UInt = Annotated[StrictInt, _within(0, 2**32 - 1, "the number"), _bounds(0, 2**32 - 1)]
Float = Annotated[StrictFloat, WithJsonSchema({"type": "number"})]
Bool = StrictBool
Str = StrictStr


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise wrong(f"a port must be from 1 to 65535, not {shown(value)}")
    return value


Port = Annotated[StrictInt, AfterValidator(_port), _bounds(1, 65535)]


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise wrong(f"must be a number or a name, not {shown(value)}")
    return value


IntOrString = Annotated[int | str, PlainValidator(_int_or_string), WithJsonSchema({"x-kubernetes-int-or-string": True})]


def _percentage(value: float) -> float:
    if not 0 <= value <= 100:
        raise wrong(f"a percentage must be from 0 to 100, not {shown(value)}")
    if 0 < value < 0.0001:
        raise wrong(f"a percentage that is not 0 must be at least 0.0001, not {shown(value)}")
    return value


PercentValue = Annotated[StrictFloat, AfterValidator(_percentage), _bounds(0, 100, "number")]
PercentInt = Annotated[StrictInt, AfterValidator(_percentage), _bounds(0, 100)]


def is_number(text: str, low: int, high: int) -> bool:
    """Whether a text is a whole number from ``low`` to ``high``, in plain digits."""
    return text.isascii() and text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high


def is_port(text: str) -> bool:
    """Whether a text is the number of a port."""
    return is_number(text, 1, 65535)


# --- Texts


def _regex(text: str) -> str:
    complaint = regex_complaint(text)
    if complaint:
        raise wrong(complaint)
    return text


LARGEST_REGEX_KEY: Final = "re2.max_program_size.error_level"
"""The key of Envoy's runtime that says how large the RE2 program of a regular expression may be."""
LARGEST_REGEX: Final = 32768
"""Its value in Mizzen's bootstraps, and in Istio's: instructions."""

_QUIET = re2.Options()
_QUIET.log_errors = False
_BYTEWISE = re2.Options()
_BYTEWISE.log_errors = False
_BYTEWISE.encoding = re2.Options.Encoding.LATIN1  # as Envoy compiles


def regex_size(text: str) -> int:
    """How many instructions the RE2 program of a regular expression has in Envoy."""
    return int(re2.compile(text.encode(), _BYTEWISE).programsize)


def regex_complaint(text: str) -> str:
    """Why a text is no regular expression in RE2's syntax; empty if it is one."""
    if len(text) > 1024:
        return f"a regular expression may have 1024 characters, this one has {len(text)}: split it"
    try:
        re2.compile(text, _QUIET)
    except re2.error as error:
        detail = error.args[0] if error.args else "unknown fault"
        detail = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else detail
        return (
            f"{shown(text)} is not a regular expression of RE2's syntax ({detail}): "
            "look-around and back-references are not in it"
        )
    size = regex_size(text)
    if size > LARGEST_REGEX:
        return (
            f"{shown(text)} makes an RE2 program of {size} instructions, and proxies take {LARGEST_REGEX}: "
            "repeat less, or split it"
        )
    return ""


Regex = Annotated[StrictStr, AfterValidator(_regex)]

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)


def header_name_complaint(name: str) -> str:
    """Why a text is no name of a header (RFC 9110 section 5.1; pseudo-headers such as `:authority` are admitted)."""
    if not name:
        return "the name of a header must not be empty"
    if not _HEADER_NAME.fullmatch(name[1:] if name.startswith(":") else name):
        return f"{shown(name)} is not the name of a header: use letters, digits and hyphens"
    return ""


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_COMMANDS = re.compile(r"(?:[^%]|%%|%[A-Z0-9_]+(?:\([^%]*\))?(?::\d+)?%)*", re.ASCII | re.DOTALL)


def header_value_complaint(value: str) -> str:
    """Why a text is no value of a header that a route sets (Envoy's commands such as `%HOSTNAME%` are admitted)."""
    if _CONTROL.search(value):
        return "a value of a header has no line ends and other control characters: remove them"
    if not _COMMANDS.fullmatch(value):
        return f"{shown(value)} has a percent sign that begins none of Envoy's commands: write %% for a percent sign"
    return ""


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_DOMAIN_LABEL = re.compile(r"[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?", re.ASCII)
_LABEL_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)", re.ASCII)


def dns_label_complaint(name: str) -> str:
    """Why a text is no DNS label as Kubernetes has them (RFC 1123, lower case)."""
    if len(name) > 63:
        return f"{shown(name)} has {len(name)} characters, a DNS label has at most 63"
    if not _LABEL.fullmatch(name):
        return (
            f"{shown(name)} is not a DNS label: use lower-case letters, digits and hyphens, "
            "with a letter or digit at both ends"
        )
    return ""


def dns_subdomain_complaint(name: str) -> str:
    """Why a text is no DNS name as Kubernetes has them (RFC 1123, lower case)."""
    if len(name) > 253:
        return f"{shown(name)} has {len(name)} characters, a name has at most 253"
    if not all(_LABEL.fullmatch(part) for part in name.split(".")):
        return (
            f"{shown(name)} is not a DNS name: use lower-case letters, digits, hyphens and dots, "
            "with a letter or digit at both ends of each part"
        )
    return ""


def domain_complaint(host: str) -> str:
    """Why a text is no domain name without a wildcard; empty if it is one."""
    if not host:
        return "a host must not be empty"
    if len(host) > 255:
        return f"{shown(host)} has {len(host)} characters, a domain name has at most 255"
    labels = host.removesuffix(".").split(".")
    for label in labels:
        if not _DOMAIN_LABEL.fullmatch(label) or len(label) > 63:
            return f"{shown(host)} is not a domain name: {shown(label)} is not a DNS label (letters, digits, hyphens, at most 63)"
    if labels[-1].isdigit():
        return f"{shown(host)} is not a domain name: the last label must not be a number"
    return ""


def wildcard_domain_complaint(host: str) -> str:
    """Why a text is neither a domain name nor one that begins with a wildcard (`*`, `*.example.com`, `*-a.example.com`)."""
    if host == "*":
        return ""
    name = host.removeprefix("*.") if host.startswith("*.") else host.removeprefix("*").removeprefix("-")
    if "*" in name:
        return f'{shown(host)} has a wildcard where none can be: only the beginning can be "*", as in "*.example.com"'
    return domain_complaint(name if host.startswith("*") else host)


def unix_socket_complaint(address: str) -> str:
    """Why what begins with `unix://` is no socket: an absolute path, or an abstract name that begins with `@`, follows."""
    path = address.removeprefix("unix://")
    if path.startswith("@") or (path.startswith("/") and not path.endswith("/")):
        return ""
    return f"{shown(address)} is not a socket: write unix:///path, or unix://@name for an abstract one"


def is_within(host: str, pattern: str) -> bool:
    """Whether every name that ``host`` (a name or a wildcard) stands for is also one of ``pattern``."""
    if pattern == "*" or host == pattern:
        return True
    return pattern.startswith("*") and host.removeprefix("*").endswith(pattern[1:])


def hosts_overlap(one: str, other: str) -> bool:
    """Whether there are names that both hosts stand for."""
    return is_within(one, other) or is_within(other, one)


def is_ip(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_ip_or_cidr(text: str) -> bool:
    """Whether a text is an address or a range of addresses (`10.0.0.0/8`)."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def label_key_complaint(key: str) -> str:
    """Why a text is no key of a label or annotation (`name` or `prefix/name`, as Kubernetes has them)."""
    prefix, slash, name = key.rpartition("/")
    if slash and dns_subdomain_complaint(prefix):
        return f"{shown(key)} is not the key of a label: what stands before the slash must be a DNS name"
    if len(name) > 63 or not _LABEL_NAME.fullmatch(name):
        return (
            f"{shown(key)} is not the key of a label: use at most 63 letters, digits, hyphens, underscores and dots, "
            "with a letter or digit at both ends"
        )
    return ""


def label_value_complaint(value: str) -> str:
    """Why a text is no value of a label, as Kubernetes has them."""
    if value and (len(value) > 63 or not _LABEL_NAME.fullmatch(value)):
        return (
            f"{shown(value)} is not the value of a label: use at most 63 letters, digits, hyphens, underscores and dots, "
            "with a letter or digit at both ends"
        )
    return ""
