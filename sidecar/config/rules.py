"""The rules of protoc-gen-validate for one value, each compiled to a check that says in words what is wrong.

Envoy's protos carry the rules as options of their fields; `validate.proto` of protoc-gen-validate says what they mean.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from sidecar.config.json_mapping import MAX_DURATION_SECONDS

Check = Callable[[Any], str | None]
"""From a value to what is wrong with it ("must be at least 1"), or None."""

_HEADER_PATTERNS = {
    (1, True): (re.compile(r":?[0-9a-zA-Z!#$%&'*+-.^_|~`]+"), "must be the name of an HTTP header"),
    (1, False): (re.compile(r"[^\x00\n\r]*"), "must not contain NUL, CR or LF"),
    (2, True): (re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*"), "must be the value of an HTTP header"),
    (2, False): (re.compile(r"[^\x00\n\r]*"), "must not contain NUL, CR or LF"),
}
_LABEL = re.compile(r"[0-9a-zA-Z](?:[0-9a-zA-Z-]{0,61}[0-9a-zA-Z])?", re.ASCII)


def show_number(number: float) -> str:
    """A number as a configuration spells it."""
    return f"{number:g}" if isinstance(number, float) else str(number)


def number_checks(
    rules: Any, show: Callable[[Any], str] = show_number, convert: Callable[[Any], Any] = lambda limit: limit
) -> list[Check]:
    """The checks for a number or anything else that has an order; `convert` makes limits comparable with values."""
    checks: list[Check] = []
    limits = {
        name: convert(getattr(rules, name)) for name in ("const", "lt", "lte", "gt", "gte") if rules.HasField(name)
    }
    checks += _range_checks(limits, show)
    if "const" in limits:
        checks.append(_unless(lambda value: bool(value == limits["const"]), f"must be {show(limits['const'])}"))
    return checks + _choice_checks(rules, show, convert)


def string_checks(rules: Any) -> list[Check]:
    """The checks for a string. Lengths count characters, except those called bytes, which count them in UTF-8."""
    checks = _length_checks(rules, "len", "min_len", "max_len", len, "character")
    checks += _length_checks(rules, "len_bytes", "min_bytes", "max_bytes", lambda value: len(value.encode()), "byte")
    checks += _affix_checks(rules)
    if rules.HasField("const"):
        checks.append(_unless(lambda value: bool(value == rules.const), f"must be {rules.const!r}"))
    if rules.HasField("pattern"):
        checks.append(_pattern_check(rules.pattern))
    known = rules.WhichOneof("well_known")
    if known == "well_known_regex":
        pattern, words = _HEADER_PATTERNS[rules.well_known_regex, rules.strict]
        checks.append(_unless(lambda value: pattern.fullmatch(value) is not None, words))
    elif known is not None:
        accepts, words = _WELL_KNOWN[known]
        checks.append(_unless(lambda value: _succeeds(accepts, value), words))
    return checks + _choice_checks(rules, repr, lambda choice: choice)


def bytes_checks(rules: Any) -> list[Check]:
    """The checks for bytes."""
    checks = _length_checks(rules, "len", "min_len", "max_len", len, "byte") + _affix_checks(rules)
    if rules.HasField("const"):
        checks.append(_unless(lambda value: bool(value == rules.const), f"must be {rules.const!r}"))
    if rules.HasField("pattern"):
        checks.append(_pattern_check(rules.pattern))
    lengths = {"ip": (4, 16), "ipv4": (4,), "ipv6": (16,)}.get(rules.WhichOneof("well_known") or "")
    if lengths:
        checks.append(_unless(lambda value: len(value) in lengths, "must be an IP address in bytes"))
    return checks + _choice_checks(rules, repr, lambda choice: choice)


def enum_checks(rules: Any, enum: Any) -> list[Check]:
    """The checks for an enum's number."""

    def name_of(number: Any) -> str:
        value = enum.values_by_number.get(number)
        return value.name if value else str(number)

    checks = _choice_checks(rules, name_of, lambda choice: choice)
    if rules.HasField("const"):
        checks.append(_unless(lambda value: bool(value == rules.const), f"must be {name_of(rules.const)}"))
    if rules.defined_only:
        names = ", ".join(value.name for value in enum.values)
        known = frozenset(enum.values_by_number)
        checks.append(_unless(lambda value: value in known, f"must be one of {names}"))
    return checks


def duration_checks(rules: Any) -> list[Check]:
    """The checks for a google.protobuf.Duration."""
    checks = number_checks(rules, show_nanos, nanos_of)
    return [lambda value, check=check: check(nanos_of(value)) for check in checks]  # type: ignore[misc]


def duration_in_range(duration: Any) -> str | None:
    """What Envoy asks of every google.protobuf.Duration in its configuration."""
    if duration.seconds < 0 or duration.nanos < 0:
        return "must not be negative"
    if duration.seconds > MAX_DURATION_SECONDS or duration.nanos > 999_999_999:
        return "is out of range: nanos are less than a second"
    return None


def nanos_of(duration: Any) -> int:
    """A Duration or Timestamp in nanoseconds."""
    nanos: int = duration.seconds * 1_000_000_000 + duration.nanos
    return nanos


def show_nanos(nanos: int) -> str:
    """Nanoseconds as a configuration spells them: "0.25s"."""
    seconds, rest = divmod(nanos, 1_000_000_000)
    return f"{seconds}.{rest:09d}".rstrip("0").rstrip(".") + "s"


def count_checks(lowest: int, highest: int | None, what: str) -> list[Check]:
    """The checks for how many items or pairs there are."""
    checks: list[Check] = []
    if lowest:
        checks.append(_unless(lambda value: len(value) >= lowest, f"must have at least {_counted(lowest, what)}"))
    if highest is not None:
        checks.append(_unless(lambda value: len(value) <= highest, f"must have at most {_counted(highest, what)}"))
    return checks


def no_repeats(values: Iterable[Any]) -> str | None:
    """The check for `repeated.unique`."""
    items = list(values)
    return "must not hold the same item twice" if len({repr(item) for item in items}) < len(items) else None


def _unless(accepts: Callable[[Any], bool], words: str) -> Check:
    return lambda value: None if accepts(value) else words


def _range_checks(limits: dict[str, Any], show: Callable[[Any], str]) -> list[Check]:
    """An upper limit below the lower one means the values outside."""
    lower: Check | None = None
    upper: Check | None = None
    if "gt" in limits:
        lower = _unless(lambda value: bool(value > limits["gt"]), f"must be greater than {show(limits['gt'])}")
    elif "gte" in limits:
        lower = _unless(lambda value: bool(value >= limits["gte"]), f"must be at least {show(limits['gte'])}")
    if "lt" in limits:
        upper = _unless(lambda value: bool(value < limits["lt"]), f"must be less than {show(limits['lt'])}")
    elif "lte" in limits:
        upper = _unless(lambda value: bool(value <= limits["lte"]), f"must be at most {show(limits['lte'])}")
    if lower is None or upper is None:
        return [check for check in (lower, upper) if check]
    low = limits["gt"] if "gt" in limits else limits["gte"]
    high = limits["lt"] if "lt" in limits else limits["lte"]
    if high < low:
        below, above, words = upper, lower, f"must be below {show(high)} or above {show(low)}"
        return [lambda value: words if below(value) and above(value) else None]
    return [lower, upper]


def _choice_checks(rules: Any, show: Callable[[Any], str], convert: Callable[[Any], Any]) -> list[Check]:
    checks: list[Check] = []
    allowed, forbidden = [convert(one) for one in getattr(rules, "in")], [convert(one) for one in rules.not_in]
    if allowed:
        checks.append(_unless(lambda value: value in allowed, f"must be one of {', '.join(map(show, allowed))}"))
    if forbidden:
        checks.append(_unless(lambda value: value not in forbidden, f"must not be {' or '.join(map(show, forbidden))}"))
    return checks


def _length_checks(
    rules: Any, exact: str, lowest: str, highest: str, measure: Callable[[Any], int], what: str
) -> list[Check]:
    checks: list[Check] = []
    if rules.HasField(exact):
        length = getattr(rules, exact)
        checks.append(_unless(lambda value: measure(value) == length, f"must have {_counted(length, what)}"))
    if least := getattr(rules, lowest):
        words = "must not be empty" if least == 1 else f"must have at least {_counted(least, what)}"
        checks.append(_unless(lambda value: measure(value) >= least, words))
    if rules.HasField(highest):
        most = getattr(rules, highest)
        checks.append(_unless(lambda value: measure(value) <= most, f"must have at most {_counted(most, what)}"))
    return checks


def _affix_checks(rules: Any) -> list[Check]:
    checks: list[Check] = []
    if rules.HasField("prefix"):
        checks.append(_unless(lambda value: value.startswith(rules.prefix), f"must begin with {rules.prefix!r}"))
    if rules.HasField("suffix"):
        checks.append(_unless(lambda value: value.endswith(rules.suffix), f"must end with {rules.suffix!r}"))
    if rules.HasField("contains"):
        checks.append(_unless(lambda value: rules.contains in value, f"must contain {rules.contains!r}"))
    if rules.DESCRIPTOR.fields_by_name.get("not_contains") and rules.HasField("not_contains"):
        checks.append(
            _unless(lambda value: rules.not_contains not in value, f"must not contain {rules.not_contains!r}")
        )
    return checks


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _pattern_check(pattern: str) -> Check:
    return _unless(lambda value: _searcher(pattern)(value), f"must match the regular expression {pattern}")


@lru_cache(maxsize=64)
def _searcher(pattern: str) -> Callable[[Any], bool]:
    import re2  # only few configurations meet a pattern, and the library takes memory

    search = re2.compile(pattern).search
    return lambda value: search(value) is not None


def _succeeds(accepts: Callable[[str], object], value: str) -> bool:
    try:
        return bool(accepts(value))
    except ValueError:
        return False


def _hostname(value: str) -> bool:
    return len(value) <= 253 and all(map(_LABEL.fullmatch, value.removesuffix(".").split(".")))


def _email(value: str) -> bool:
    user, at, host = value.rpartition("@")
    return bool(user and at) and len(user) <= 64 and _hostname(host)


def _uri(value: str) -> bool:
    from urllib.parse import urlsplit

    return bool(urlsplit(value).scheme)


def _uri_reference(value: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(value) is not None


def _uuid(value: str) -> bool:
    from uuid import UUID

    return UUID(value) is not None


_WELL_KNOWN: dict[str, tuple[Callable[[str], object], str]] = {
    "address": (
        lambda value: _succeeds(ipaddress.ip_address, value) or _hostname(value),
        "must be a host or IP address",
    ),
    "email": (_email, "must be an e-mail address"),
    "hostname": (_hostname, "must be a host name"),
    "ip": (ipaddress.ip_address, "must be an IP address"),
    "ipv4": (ipaddress.IPv4Address, "must be an IPv4 address"),
    "ipv6": (ipaddress.IPv6Address, "must be an IPv6 address"),
    "uri": (_uri, "must be an absolute URI"),
    "uri_ref": (_uri_reference, "must be a URI reference"),
    "uuid": (_uuid, "must be a UUID"),
}
