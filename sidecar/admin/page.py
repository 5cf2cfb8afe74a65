"""What an endpoint answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

TEXT: Final = "text/plain; charset=UTF-8"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=UTF-8"
ERROR: Final = "text/plain"
"""The content type of Envoy's errors that arise while a page is made."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: HTTP status, content type, body. A body that is an iterator is written one chunk in a loop turn.

    `after` is called once the body has been sent whole; `fields` are headers of this answer alone.
    """

    status: int
    content_type: str
    body: bytes | Iterator[bytes]
    after: Callable[[], None] | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()


def text(body: str, status: int = 200) -> Page:
    """A short plain text."""
    return Page(status, TEXT, body.encode())


def ok() -> Page:
    """What a change of state answers with."""
    return Page(200, TEXT, b"OK\n")
