"""The filter that sets objects of the filter state: what connections to the upstream are to offer by ALPN.

Source: Envoy's ``extensions.filters.http.set_filter_state.v3`` and its list of well-known filter state objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.config.filters.set_filter_state import SetFilterState
from sidecar.core.explanation import PASSES, Step
from sidecar.core.http_filter import FilterStream
from sidecar.filters.context import NamedFilter


class SetFilterStateFilter(NamedFilter):
    """The objects of one filter, or of a filter and the routes' levels one after another."""

    __slots__ = ("_objects",)

    def __init__(self, name: str, levels: Sequence[SetFilterState]) -> None:
        NamedFilter.__init__(self, name)
        self._objects = {one.object_key: one.protocols for level in levels for one in level.on_request_headers}

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Set the objects."""
        if stream.filter_state is None:
            stream.filter_state = dict(self._objects)
        else:
            stream.filter_state.update(self._objects)
        return None

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: it answers no request."""
        self.on_request(stream, True)
        said = "; ".join(f"{key} is {','.join(names)}" for key, names in self._objects.items())
        return Step("http filter", self.name, PASSES, f"http filter {self.name}: passes: {said}")


def make_set_filter_state(levels: Sequence[SetFilterState], name: str) -> NamedFilter:
    """A filter that applies ``levels`` in this order."""
    if any(level.on_request_headers for level in levels):
        return SetFilterStateFilter(name, levels)
    return NamedFilter(name)
