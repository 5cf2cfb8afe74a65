"""Shapes of message heads: what is the same in every message of a kind, and where the values stand that differ.

A service's requests differ in their paths and in few fields (request and trace ids, cookies, tokens), its responses in
their dates and lengths. A head whose every piece has the size that it had before is cut with one call, and compared with
one more; nothing of it is parsed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from struct import Struct
from typing import Any, Final

from sidecar.core.characters import only

_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_SEPARATOR: Final = b"\n"  # occurs in no value
_BLANK: Final = 0x20

_VISIBLE: Final = bytes(range(0x21, 0x7F))
"""What values consist of, but for blanks."""

_OUTLINE: Final = bytes([ord("x") if octet in _VISIBLE else octet for octet in range(256)])
"""The table that makes all of them the same, and leaves the others as they are."""

PATH: Final = only(_VISIBLE.replace(b"#", b""))
"""The table of what a path may consist of that nothing has to be done to."""

CANONICAL_PATH: Final = only(_VISIBLE.translate(None, b'#%\\"<>^`{|}'))
"""The same where paths are normalised; ``//`` and ``/.`` are looked for apart."""

REQUEST_VALUES: Final = frozenset(
    (
        b"x-request-id", b"traceparent", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"b3",
        b"x-correlation-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-datadog-trace-id",
        b"x-datadog-parent-id", b"authorization", b"cookie", b"proxy-authorization", b"idempotency-key",
        b"content-length",
    )
)  # fmt: skip
"""Fields whose values differ from request to request, or are secrets that no shape may keep."""

RESPONSE_VALUES: Final = frozenset(
    (
        b"date", b"content-length", b"x-envoy-upstream-service-time", b"etag", b"last-modified", b"set-cookie",
        b"expires", b"age", b"x-request-id", b"x-correlation-id", b"traceparent",
    )
)  # fmt: skip

_NO_VALUES: Final = frozenset(
    (b"host", b"connection", b"content-length", b"transfer-encoding", b"te", b"expect", b"upgrade", b"trailer",
     b"keep-alive", b"proxy-connection", b"http2-settings", b"user-agent", b"via", b"forwarded", b"server")
)  # fmt: skip
_NO_VALUE_PREFIXES: Final = (b"x-forwarded-", b"x-envoy-")


MOST_VARYING: Final = 256
_LEARNT_A_SECOND: Final = 32


def may_vary(name: bytes) -> bool:
    """Whether a field may be left open in a shape of requests: nothing on the way decides by its value."""
    return name not in _NO_VALUES and not name.startswith(_NO_VALUE_PREFIXES)


def differing(before: list[bytes], lines: list[bytes], known: int) -> set[bytes]:
    """The fields that two heads of one size differ in, if they may: they vary from message to message.

    ``known`` is how many are known to do so already; there is a limit.
    """
    if len(before) != len(lines) or known >= MOST_VARYING:
        return set()
    names = {
        one.partition(b":")[0].lower()
        for one, other in zip(before, lines, strict=True)
        if one != other and one.partition(b":")[0].lower() == other.partition(b":")[0].lower()
    }
    return {name for name in names if may_vary(name)}


def without_values(lines: list[bytes], volatile: Collection[bytes]) -> list[bytes]:
    """The lines of a head to compare later ones with; what is left open anyway is not kept, for it may be secret."""
    kept = []
    for line in lines:
        name = line.partition(b":")[0]
        kept.append(name + b":" if name.lower() in volatile else line)
    return kept


class Pace:
    """How often something new may be learnt: learning costs as much as a few requests."""

    __slots__ = ("count", "since")

    def __init__(self) -> None:
        self.since = 0.0
        self.count = 0

    def permits(self, now: float) -> bool:
        """Whether one more may be learnt at ``now``, in seconds."""
        if now >= self.since + 1.0:
            self.since, self.count = now, 0
        self.count += 1
        return self.count <= _LEARNT_A_SECOND


class Cut:
    """A head in pieces: constants and values in turn, a constant first and last.

    ``unpack(data, at)`` gives the pieces of a head of the same ``size`` that stands at ``at``; it is of this shape if
    ``pieces[::2] == constants``. ``names`` are those of the values, in lower case.
    """

    __slots__ = ("blanks", "constants", "names", "outline", "size", "unpack", "with_blanks")

    def __init__(self, pieces: list[bytes], names: tuple[bytes, ...]) -> None:
        self.constants = tuple(pieces[::2])
        self.names = names
        joined = _SEPARATOR.join(pieces[1::2])
        self.outline = joined.translate(_OUTLINE)
        self.blanks = joined.translate(None, _VISIBLE)
        self.with_blanks = tuple(number for number, value in enumerate(pieces[1::2]) if b" " in value)
        self.size = sum(map(len, pieces))
        self.unpack: Callable[[bytes, int], tuple[Any, ...]] = Struct(
            "".join(f"{len(piece)}s" for piece in pieces)
        ).unpack_from

    def accepts(self, values: tuple[bytes, ...]) -> bool:
        """Whether the values are visible ASCII, with as many blanks as in the head that was cut, none of them outside."""
        joined = _SEPARATOR.join(values)
        if joined.translate(_OUTLINE) == self.outline:  # the blanks are where they were
            return True
        if joined.translate(None, _VISIBLE) != self.blanks:
            return False
        for number in self.with_blanks:  # no other can have any, since there are as many separators between the blanks
            value = values[number]
            if value[0] == _BLANK or value[-1] == _BLANK:
                return False
        return True

    def __repr__(self) -> str:
        return f"<Cut of {self.size} bytes, {len(self.names)} values>"


def cut(head: bytes, volatile: Collection[bytes]) -> Cut | None:
    """Cut a head, empty line included, leaving open the fields in ``volatile``; None if one of them is not plain."""
    first, *lines = head[:-4].split(b"\r\n")
    pieces = [first + b"\r\n"]
    names: list[bytes] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        name = line.partition(b":")[0].lower()
        if name not in volatile:
            pieces[-1] += line + b"\r\n"
            continue
        if match is None or name in names:
            return None
        pieces[-1] += line[: match.start(2)]
        pieces += (match[2], b"\r\n")
        names.append(name)
    pieces[-1] += b"\r\n"
    return Cut(pieces, tuple(names))


def literal(text: bytes) -> bytes:
    """``text`` for use in a template of the ``%`` operator."""
    return text.replace(b"%", b"%%")
