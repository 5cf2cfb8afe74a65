"""Filter chains, compiled: for every hook, exactly the filters that have it, bound and in the order of their calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.core.http_filter import HttpFilter

Hook = Callable[..., Any]


def _hooks(filters: Sequence[tuple[int, HttpFilter]], name: str) -> tuple[tuple[int, Hook], ...]:
    base = getattr(HttpFilter, name)
    return tuple((at, getattr(filter, name)) for at, filter in filters if getattr(type(filter), name) is not base)


class FilterChain:
    """The HTTP filters of a connection manager as one route has them. Positions count from the downstream's side.

    Response hooks are in reverse order. ``on_request`` has no positions, because the plain path does not need them. ``places``
    say for each filter where it stands among all that the connection manager has been given, disabled ones included (-1: it
    is none of them): filters of one name are told apart by that alone.
    """

    __slots__ = (
        "complete",
        "filters",
        "places",
        "plain_request",
        "plain_response",
        "request",
        "request_data",
        "request_positions",
        "request_trailers",
        "response",
        "response_data",
        "response_trailers",
    )  # fmt: skip

    def __init__(self, filters: Sequence[HttpFilter], places: Sequence[int] = ()) -> None:
        self.filters = tuple(filters)
        self.places = tuple(places) or tuple(range(len(self.filters)))
        forward = list(enumerate(filters))
        backward = forward[::-1]
        request = _hooks(forward, "on_request")
        self.request: tuple[Hook, ...] = tuple(hook for _, hook in request)
        self.request_positions: tuple[int, ...] = tuple(at for at, _ in request)
        self.request_data = _hooks(forward, "on_request_data")
        self.request_trailers = _hooks(forward, "on_request_trailers")
        self.response = _hooks(backward, "on_response")
        self.response_data = _hooks(backward, "on_response_data")
        self.response_trailers = _hooks(backward, "on_response_trailers")
        self.complete: tuple[Hook, ...] = tuple(hook for _, hook in _hooks(forward, "on_complete"))
        self.plain_request = not self.request_data and not self.request_trailers
        self.plain_response = not self.response and not self.response_data and not self.response_trailers

    def __repr__(self) -> str:
        return f"<FilterChain {' '.join(filter.name for filter in self.filters)}>"
