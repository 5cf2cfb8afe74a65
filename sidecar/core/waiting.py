"""What is waited for before something new is used: the routes, secrets and filters that a listener needs and has not got yet.

Source: Envoy's "Initialization" and "Listener warming".
"""

from __future__ import annotations

from collections.abc import Callable

Start = Callable[[Callable[[], None]], None]
"""Begins to look for something; calls what it is given, once or more often, when it is there or is waited for no more."""


class Waiting:
    """Collects what something needs while it is made; ``begin`` looks for all of it, and tells when that is over."""

    __slots__ = ("_left", "_ready", "_starts", "missing")

    def __init__(self) -> None:
        self._starts: list[tuple[str, Start]] = []
        self._left = 0
        self._ready: Callable[[], None] | None = None
        self.missing: list[str] = []  # what is looked for now, as Envoy calls it

    def add(self, target: str, start: Start) -> None:
        """One more thing that is needed; ``target`` is what Envoy calls it."""
        self._starts.append((target, start))

    def begin(self, ready: Callable[[], None]) -> None:
        """Look for all of it; ``ready`` is called once, at once if nothing is missing."""
        self._ready = ready
        starts, self._starts = self._starts, []
        self._left = len(starts) + 1
        self.missing = [target for target, _ in starts]
        for target, start in starts:
            start(self._once(target))
        self._one_less()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._ready = None

    def _once(self, target: str) -> Callable[[], None]:
        called = False

        def there() -> None:
            nonlocal called
            if not called:
                called = True
                self.missing.remove(target)
                self._one_less()

        return there

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left and self._ready is not None:
            ready, self._ready = self._ready, None
            ready()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self._left or len(self._starts)}>"


class Unawaited(Waiting):
    """For what is made when nothing new is: a filter whose configuration has changed. It begins at once, and nobody waits."""

    __slots__ = ()

    def add(self, target: str, start: Start) -> None:
        start(lambda: None)
