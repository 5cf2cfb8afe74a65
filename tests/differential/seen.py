"""What an upstream saw of one request."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Seen:
    """One request, or one raw connection (``start`` is then empty), as it reached an upstream.

    Over HTTP/2 the pseudo-header fields stand first among ``headers``, and ``reset`` is the code with which the proxy reset
    the stream. ``fault``: why the script of the answer could not be carried out.
    """

    upstream: str
    start: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False
    connection: int = 0
    done: bool = False
    protocol: str = "HTTP/1"
    reset: str | None = None
    fault: str = ""
