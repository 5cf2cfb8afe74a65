"""One generated Python function for each format: a template, and expressions that read the stream's slots.

A log line is made for every request, so nothing is looked up that was known when the format was compiled: the generated
function is a single `template % (...)`. Values that come again and again (user agents, hosts, flags) are rendered once
and remembered; numbers are formatted in place; what differs in every request (paths, request ids) is checked for
characters that need escaping with one C call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, cast

from sidecar.core.address import Address
from sidecar.core.head import Head, RequestHead, ResponseHead
from sidecar.core.stream_info import StreamInfo

from .format_values import PLAIN, json_bytes, quote, text_bytes

Formatter: TypeAlias = Callable[[StreamInfo], bytes]
"""A compiled format."""

_MEMO_SIZE = 1024
_MEMO_LONGEST = 512  # octets of a rendered value

_COMBINED = frozenset(
    b"accept accept-encoding access-control-request-headers access-control-request-method authorization cache-control"
    b" connection content-encoding content-length content-type expect forwarded grpc-accept-encoding grpc-timeout"
    b" if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive max-forwards origin pragma"
    b" proxy-connection referer te transfer-encoding upgrade user-agent via x-client-trace-id x-forwarded-for"
    b" x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id date server location vary etag grpc-status"
    b" grpc-message access-control-allow-headers access-control-allow-methods access-control-allow-origin"
    b" access-control-expose-headers access-control-max-age access-control-allow-credentials".split()
)
"""Names whose repeated fields Envoy combines when it receives them; of all others a format shows the first field."""


class Kind(Enum):
    """How a value is had and rendered."""

    CONSTANT = "known when the format is compiled"
    NUMBER = "an integer that is never missing"
    OCTETS = "bytes, or None"
    KEY = "something hashable that repeats, and a function from it to the value"
    ANY = "any plain value"


@dataclass(frozen=True, slots=True)
class Value:
    """Where a command's value comes from.

    `expression` is Python over `stream`, `body`, the names in `_LOCALS`, and `$0`, `$1` ... for the objects in `bound`.
    `repeats` marks OCTETS that are the same in many requests. `convert` belongs to KEY, `constant` to CONSTANT.
    """

    kind: Kind
    expression: str = ""
    bound: tuple[Any, ...] = ()
    repeats: bool = False
    convert: Callable[[Any], Any] | None = None
    constant: Any = None


def constant(value: Any) -> Value:
    """A value that is known now."""
    return Value(Kind.CONSTANT, constant=value)


def number(expression: str) -> Value:
    """An integer."""
    return Value(Kind.NUMBER, expression)


def octets(expression: str, *bound: Any, repeats: bool = False) -> Value:
    """Bytes or None."""
    return Value(Kind.OCTETS, expression, bound, repeats)


def keyed(expression: str, convert: Callable[[Any], Any], *bound: Any) -> Value:
    """The value that `convert` makes of a hashable key which repeats."""
    return Value(Kind.KEY, expression, bound, convert=convert)


def text(expression: str) -> Value:
    """A str that repeats and is missing when it is empty or None."""
    return keyed(expression, lambda key: key or None)


def any_value(expression: str, *bound: Any) -> Value:
    """Any plain value, rendered anew each time."""
    return Value(Kind.ANY, expression, bound)


class Memo(dict[Any, bytes]):
    """Renderings of values that repeat; bounded, and emptied when full."""

    __slots__ = ("render",)

    def __init__(self, render: Callable[[Any], bytes]) -> None:
        self.render = render

    def __missing__(self, key: Any) -> bytes:
        rendered = self.render(key)
        if len(self) >= _MEMO_SIZE:
            self.clear()
        if len(rendered) <= _MEMO_LONGEST:
            self[key] = rendered
        return rendered


def first_values(head: Head) -> dict[bytes, bytes]:
    """The lookup table of a head in which names repeat, as Envoy's formats see it: mostly the first field counts."""
    return {name: head.index[name] if name in _COMBINED else value for name, value in reversed(head.fields)}


NO_REQUEST = RequestHead(b"", b"", b"", [], 0, b"")
NO_RESPONSE = ResponseHead(0, [])
NO_ADDRESS = Address(None)

_LOCALS = {
    "request": "stream.request or no_request",
    "index": "first_values(request) if request.repeats else request.index",
    "response": "stream.response or no_response",
    "response_index": "first_values(response) if response.repeats else response.index",
    "connection": "stream.connection",
    "host": "stream.host",
}
_WORDS = re.compile(r"(?<![\w.\"'])[a-z_]+\b")


class Line:
    """A format while it is compiled: literals and values are added from left to right, `function` makes the code."""

    def __init__(self) -> None:
        self._template = bytearray()
        self._arguments: list[str] = []
        self._namespace: dict[str, Any] = {
            "plain": PLAIN,
            "quote": quote,
            "no_request": NO_REQUEST,
            "no_response": NO_RESPONSE,
            "no_address": NO_ADDRESS,
            "first_values": first_values,
        }

    def literal(self, octets: bytes) -> None:
        """Add what never changes."""
        self._template += octets.replace(b"%", b"%%")

    def text(self, value: Value, length: int | None, missing: bytes) -> None:
        """Add a value as text; `missing` stands for one that there is not."""
        match value.kind:
            case Kind.CONSTANT:
                self.literal(text_bytes(value.constant, missing, length))
            case Kind.NUMBER:
                self._add("%d", self._bound(value))
            case Kind.OCTETS:
                cut = "" if length is None else f"[:{length}]"
                self._add("%b", f"({missing!r} if (octets := {self._bound(value)}) is None else octets{cut})")
            case Kind.KEY:
                convert = value.convert or _same
                self._add("%b", self._memo(lambda key: text_bytes(convert(key), missing, length), value))
            case Kind.ANY:
                name = self._bind(lambda plain: text_bytes(plain, missing, length))
                self._add("%b", f"{name}({self._bound(value)})")

    def json(self, value: Value, length: int | None) -> None:
        """Add a value as JSON."""
        match value.kind:
            case Kind.CONSTANT:
                self.literal(json_bytes(value.constant, length))
            case Kind.NUMBER:
                self._add("%d", self._bound(value))
            case Kind.OCTETS if length is None and not value.repeats:
                self._add(
                    "%b",
                    f"(b'null' if (octets := {self._bound(value)}) is None else b'\"%b\"' % octets "
                    "if octets.translate(plain) == octets else quote(octets))",
                )
            case Kind.OCTETS | Kind.KEY:
                convert = value.convert or _same
                self._add("%b", self._memo(lambda key: json_bytes(convert(key), length), value))
            case Kind.ANY:
                name = self._bind(lambda plain: json_bytes(plain, length))
                self._add("%b", f"{name}({self._bound(value)})")

    def escaped(self, value: Value, length: int | None, missing: bytes) -> None:
        """Add a value as text within a JSON string. Pieces are escaped one by one, as in Envoy."""
        match value.kind:
            case Kind.CONSTANT:
                self.literal(quote(text_bytes(value.constant, missing, length))[1:-1])
            case Kind.NUMBER:
                self._add("%d", self._bound(value))
            case Kind.KEY:
                convert = value.convert or _same
                self._add("%b", self._memo(lambda key: quote(text_bytes(convert(key), missing, length))[1:-1], value))
            case Kind.OCTETS | Kind.ANY:
                name = self._bind(lambda plain: quote(text_bytes(plain, missing, length))[1:-1])
                self._add("%b", f"{name}({self._bound(value)})")

    def function(self) -> Formatter:
        """The compiled function: of the stream and, for local replies, of the body."""
        if not self._arguments:
            line = bytes(self._template) % ()
            return lambda stream, body=b"": line  # type: ignore[misc]
        arguments = ", ".join(self._arguments)
        words = set(_WORDS.findall(arguments))
        needed = set()
        for name in reversed(_LOCALS):
            if name in words:
                needed.add(name)
                words |= set(_WORDS.findall(_LOCALS[name]))
        lines = ["def render(stream, body=b''):"]
        lines += [f"    {name} = {expression}" for name, expression in _LOCALS.items() if name in needed]
        lines.append(f"    return {bytes(self._template)!r} % ({arguments},)")
        exec(compile("\n".join(lines), "<format>", "exec"), self._namespace)
        return cast(Formatter, self._namespace["render"])

    def _add(self, placeholder: str, expression: str) -> None:
        self._template += placeholder.encode()
        self._arguments.append(expression)

    def _bind(self, target: Any) -> str:
        name = f"bound_{len(self._namespace)}_"
        self._namespace[name] = target
        return name

    def _bound(self, value: Value) -> str:
        expression = value.expression
        for position, target in enumerate(value.bound):
            expression = expression.replace(f"${position}", self._bind(target))
        return expression

    def _memo(self, render: Callable[[Any], bytes], value: Value) -> str:
        return f"{self._bind(Memo(render))}[{self._bound(value)}]"


def _same(value: Any) -> Any:
    return value
