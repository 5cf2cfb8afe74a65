"""Filters that users write in Python: found by entry point, made from a TypedStruct, watched while they pause.

A user's filter is a class derived from ``sidecar.filters.HttpFilter``, registered in the entry-point group
``mizzen.filters``; it is called with the dict that the configuration holds. See ``docs/user-filters.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sidecar.config.filters.user_filter import UserFilter
from sidecar.core.http_filter import PAUSE, HttpFilter
from sidecar.core.timer_wheel import Callback, TimerWheel
from sidecar.filters.context import FilterContext

GROUP = "mizzen.filters"
PAUSE_TIMEOUT = "pause_timeout"
DETAILS = "filter_timeout"

_DEFAULT_PAUSE = 5.0
_PASSED_ON = (
    "on_request_data",
    "on_request_trailers",
    "on_response_data",
    "on_response_trailers",
)
_HOOKS = (*_PASSED_ON, "on_request", "on_response", "on_complete")

log = logging.getLogger("sidecar.filters")


def find_user_filter(name: str) -> Callable[[Mapping[str, Any]], HttpFilter]:
    """What the entry point ``name`` of the group ``mizzen.filters`` refers to.

    Raises ValueError when there is no such entry point, or when what it names cannot be imported.
    """
    # Imported here: it costs more than a megabyte, and most configurations name no user's filter.
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP)
    for entry in found.select(name=name):
        try:
            made: Callable[[Mapping[str, Any]], HttpFilter] = entry.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(f"the filter {name!r} ({entry.value}) cannot be imported: {error}") from error
        return made
    installed = ", ".join(sorted(found.names)) or "none"
    raise ValueError(f"no entry point {name!r} in the group {GROUP} (installed: {installed})")


def make_user_filter(config: UserFilter, name: str, context: FilterContext) -> HttpFilter:
    """A user's filter, with a deadline for its pauses. Raises ValueError when it cannot be made."""
    options = dict(config.config)
    pause_timeout = _seconds(options.pop(PAUSE_TIMEOUT, _DEFAULT_PAUSE), config.name)
    make = context.entry_point_filters(config.name)
    try:
        made = make(options)
    except Exception as error:
        raise ValueError(f"the filter {config.name!r} refuses its configuration: {error!r}") from error
    if not isinstance(made, HttpFilter):
        raise ValueError(f"the filter {config.name!r} is no sidecar.filters.HttpFilter but a {type(made).__name__}")
    with suppress(AttributeError):  # a class with __slots__ keeps the name that it has
        setattr(made, "name", name)  # noqa: B010 (the base class has no slot for it)
    return _watched(made, name, pause_timeout, context.worker.wheel)


def _seconds(value: Any, name: str) -> float:
    """A number of seconds, or Envoy's way to write a duration (``2.5s``)."""
    text = value.removesuffix("s") if isinstance(value, str) else value
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0.0 < seconds < float("inf") or isinstance(value, bool):
        raise ValueError(f"{PAUSE_TIMEOUT} of the filter {name!r} is no time above zero: {value!r}")
    return seconds


class _Pauses:
    """What the adapter knows of a stream that was paused: the deadlines, and whether one passed."""

    __slots__ = ("timed_out", "timers")

    def __init__(self) -> None:
        self.timers: list[Callback] = []
        self.timed_out = False


class UserFilterAdapter(HttpFilter):
    """Stands in the chain for a user's filter and ends what it pauses too long.

    Only the hooks that the user's class overrides are there (on a class made for it), since the chain looks for them.
    """

    __slots__ = ("inner", "name", "pause_timeout", "wheel")

    def __init__(self, inner: HttpFilter, name: str, pause_timeout: float, wheel: TimerWheel) -> None:
        self.inner = inner
        self.name = name
        self.pause_timeout = pause_timeout
        self.wheel = wheel

    def close(self) -> None:
        self.inner.close()

    def _watch(self, stream: Any, expire: Callable[[Any], None]) -> bool:
        if not stream.over:  # else it was answered, and the answer is on its way
            pauses: _Pauses = stream.data.setdefault(self, _Pauses())
            pauses.timers.append(stream.call_in(self.pause_timeout, lambda: expire(stream)))
        return PAUSE

    def _expire_request(self, stream: Any) -> None:
        if stream.request_at >= 0 and stream.chain.filters[stream.request_at] is self:
            self._expire(stream, 504)

    def _expire_response(self, stream: Any) -> None:
        if stream.response_at >= 0 and stream.chain.filters[stream.response_at] is self:
            self._expire(stream, 500)

    def _expire(self, stream: Any, status: int) -> None:
        log.warning("HTTP filter %s paused a stream for more than %g s; it is ended", self.name, self.pause_timeout)
        stream.data[self].timed_out = True
        stream.reply(status, details=DETAILS)


def _on_request(self: UserFilterAdapter, stream: Any, end: bool) -> bool | None:
    return self._watch(stream, self._expire_request) if self.inner.on_request(stream, end) else None


def _on_response(self: UserFilterAdapter, stream: Any, end: bool) -> bool | None:
    pauses: _Pauses | None = stream.data.get(self)
    if (pauses is not None and pauses.timed_out) or not self.inner.on_response(stream, end):
        return None
    return self._watch(stream, self._expire_response)


def _on_complete(self: UserFilterAdapter, stream: Any) -> None:
    pauses: _Pauses | None = stream.data.get(self)
    if pauses is not None:
        for timer in pauses.timers:
            self.wheel.cancel(timer)
    self.inner.on_complete(stream)


def _watched(inner: HttpFilter, name: str, pause_timeout: float, wheel: TimerWheel) -> UserFilterAdapter:
    kind = type(inner)
    overridden = {hook for hook in _HOOKS if getattr(kind, hook) is not getattr(HttpFilter, hook)}
    passed_on = tuple(hook for hook in _PASSED_ON if hook in overridden)
    members: dict[str, Any] = {"__slots__": passed_on}
    if "on_request" in overridden:
        members["on_request"] = _on_request
    if "on_response" in overridden:
        members["on_response"] = _on_response
    if overridden & {"on_request", "on_response", "on_complete"}:
        members["on_complete"] = _on_complete
    made: type[UserFilterAdapter] = type(f"{kind.__name__}Adapter", (UserFilterAdapter,), members)
    adapter = made(inner, name, pause_timeout, wheel)
    for hook in passed_on:
        setattr(adapter, hook, getattr(inner, hook))
    return adapter
