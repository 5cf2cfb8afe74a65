"""What agents of nodes ask most, told from bytes: whole, plain requests to a few paths, which need no state machine.

Everything that is not exactly of this form is h11's to judge, so that nothing is taken here that is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Scope

_LARGEST_HEAD: Final = 8192
_LARGEST_BODY: Final = 64 * 1024
_FIRST_LINE: Final = re.compile(rb"(GET|POST) (/[A-Za-z0-9/_-]+)(?:\?([A-Za-z0-9&=._-]*))? HTTP/1\.1")
_FIELD: Final = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)?[ \t]*")
_NOT_PLAIN: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"authorization"))
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose head is here, ``length`` bytes of body to it."""

    method: bytes
    path: bytes
    query: bytes
    headers: Headers
    head: int
    length: int

    def scope(self, **about: Any) -> Scope:
        """ASGI's, with what is known ``about`` the connection."""
        path = self.path.decode()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method.decode(),
            "root_path": "",
            "path": path,
            "raw_path": self.path,
            "query_string": self.query,
            "headers": self.headers,
            **about,
        }


def parse(data: bytes, paths: Collection[bytes]) -> Asked | None:
    """The request that ``data`` begins with, if it is a plain one to one of ``paths`` with its whole head; else None."""
    end = data.find(b"\r\n\r\n", 0, _LARGEST_HEAD)
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    line = _FIRST_LINE.fullmatch(first)
    if line is None or line[2] not in paths:
        return None
    headers: Headers = []
    seen: dict[bytes, bytes] = {}
    for one in lines:
        found = _FIELD.fullmatch(one)
        if found is None:
            return None
        name, value = found[1].lower(), found[2] or b""
        if name in seen or name in _NOT_PLAIN:
            return None
        seen[name] = value
        headers.append((name, value))
    length = seen.get(b"content-length", b"0" if line[1] == b"GET" else b"")
    if b"host" not in seen or seen.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    if not length.isdigit() or len(length) > 6 or int(length) > (_LARGEST_BODY if line[1] == b"POST" else 0):
        return None
    return Asked(line[1], line[2], line[3] or b"", headers, end + 4, int(length))


@dataclass(slots=True)
class Exchange:
    """One request and the answer to it, which is written whole. `run` it."""

    scope: Scope
    body: bytes
    write: Callable[[bytes], None]
    defaults: Iterable[tuple[bytes, bytes]]
    closing: bool = False
    complete: bool = False
    _start: Message = field(default_factory=dict)
    _parts: list[bytes] = field(default_factory=list)
    _asked: bool = False

    async def run(self, app: ASGIApp) -> None:
        """Raises what the application raises."""
        await app(self.scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._asked:
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(self._parts)
        status = self._start["status"]
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b""))]
        given = (pair for pair in self._start["headers"] if pair[0] != b"content-length")
        lines += [b"%s: %s\r\n" % pair for pair in (*self.defaults, *given)]
        lines.append(b"content-length: %d\r\n%s\r\n" % (len(body), b"connection: close\r\n" if self.closing else b""))
        self.complete = True
        self.write(b"".join(lines) + body)
