"""What is done: each action is a function of its scale, over what the listeners and connection managers offer for it.

Source: Envoy's "Overload actions"; `stop_reading` and `trim_accept_queue` are our own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from math import inf

from sidecar.core.overload import Accepting, Act, Serving, Shed

_RESET_AT_ONCE = 50
_SHRINK_EVERY = 10.0
_KEPT_WAIT = 0.3  # seconds for which connections may wait to be accepted
_SHORT_TURN = 0.02

Listeners = Callable[[], Iterable[Accepting]]
Managers = Callable[[], Iterable[Serving]]


def stop_accepting_connections(listeners: Listeners) -> Act:
    """New connections wait in the kernel's queue; a scale below 1 does nothing."""

    def act(scale: float) -> None:
        for listener in listeners():
            if scale >= 1.0:
                listener.pause_accepting()
            else:
                listener.resume_accepting()

    return act


def trim_accept_queue(listeners: Listeners, rate: Callable[[], float], lag: Callable[[], float]) -> Act:
    """Those that have waited longest to be accepted are closed: whom they belong to hears of it at once, and whoever comes now
    is served in good time. ``rate`` tells how many are accepted in a second, and ``lag`` how late a turn of the event loop is, in
    seconds; in a late one fewer are accepted, so that it does not become later yet.
    """

    def act(scale: float) -> None:
        longest, share = inf, 1.0
        if scale:
            longest, share = _KEPT_WAIT * rate(), _SHORT_TURN / max(lag(), _SHORT_TURN)
        for listener in listeners():
            listener.trim(longest, share)

    return act


class Rejecting:
    """New connections are closed at once, with the scale as the probability: the highest of those who ask for it."""

    __slots__ = ("_listeners", "_scales")

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._scales: dict[Shed | None, float] = {}

    def asked_by(self, shed: Shed | None) -> Act:
        """The action of one who asks; ``shed`` is called for what it turns away."""

        def act(scale: float) -> None:
            self._scales[shed] = scale
            by, highest = max(self._scales.items(), key=lambda pair: pair[1])
            for listener in self._listeners():
                listener.reject(highest, by)

        return act


class Refusing:
    """Requests are answered with 503, with the scale as the probability: the highest of those who ask for it."""

    __slots__ = ("_managers", "_scales")

    def __init__(self, managers: Managers) -> None:
        self._managers = managers
        self._scales: dict[Shed | None, float] = {}

    def asked_by(self, shed: Shed | None) -> Act:
        """The action of one who asks; ``shed`` is called for what it turns away."""

        def act(scale: float) -> None:
            self._scales[shed] = scale
            by, highest = max(self._scales.items(), key=lambda pair: pair[1])
            for manager in self._managers():
                manager.refuse(highest, by)

        return act


def disable_http_keepalive(managers: Managers) -> Act:
    """Responses end their connections, with the scale as the probability."""

    def act(scale: float) -> None:
        for manager in managers():
            manager.close_connections(scale)

    return act


def stop_reading(managers: Managers) -> Act:
    """Requests on connections that are open already wait in the kernel; a scale below 1 does nothing."""

    def act(scale: float) -> None:
        for manager in managers():
            manager.stop_reading(scale >= 1.0)

    return act


def reduce_timeouts(managers: Managers) -> Act:
    """Timeouts shrink by the scale."""

    def act(scale: float) -> None:
        for manager in managers():
            manager.scale_timers(scale)

    return act


def reset_high_memory_stream(managers: Managers, count: Callable[[int], None]) -> Act:
    """The greediest streams are reset, fifty at most each time."""

    def act(scale: float) -> None:
        left = _RESET_AT_ONCE if scale else 0
        for manager in managers():
            if left:
                done = manager.reset_streams(scale, left)
                left -= done
                count(done)

    return act


def shrink_heap(clock: Callable[[], float], count: Callable[[], None]) -> Act:
    """Memory that is free goes back to the system, every ten seconds at most."""
    next_time = 0.0

    def act(scale: float) -> None:
        nonlocal next_time
        now = clock()
        if scale >= 1.0 and now >= next_time:
            next_time = now + _SHRINK_EVERY
            give_back_memory()
            count()

    return act


def give_back_memory() -> None:
    """Collect what is unreachable, and have the C library give pages without use back, where it can (glibc)."""
    import ctypes  # for those who need it only: it is half a megabyte

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
