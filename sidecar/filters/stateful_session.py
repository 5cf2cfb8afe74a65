"""The stateful session filter: the requests of a session go to the host that answered its first one.

Source: Envoy's ``extensions.filters.http.stateful_session.v3.StatefulSession``.
"""

from __future__ import annotations

from typing import Any

from sidecar.config.filters.stateful_session import StatefulSession
from sidecar.core import response_flags as flag
from sidecar.core.http_filter import FilterStream
from sidecar.core.override_host import OVERRIDE_HOST, OverrideHost
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.session_state import State, make_state


class StatefulSessionFilter(NamedFilter):
    """``stats`` is None where none are wanted, ``state`` where nothing keeps sessions."""

    __slots__ = ("state", "strict", "stats")

    lets_pass = True

    def __init__(self, name: str, state: State | None, strict: bool, stats: Any) -> None:
        NamedFilter.__init__(self, name)
        self.state = state
        self.strict = strict
        self.stats = stats

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Ask for the session's host, if the request names one."""
        address = None if self.state is None else self.state.address_of(stream.request)
        data = stream.data
        data[self] = address
        if address:
            data[OVERRIDE_HOST] = OverrideHost(address, self.strict)
        return None

    def on_response(self, stream: Any, end: bool) -> bool | None:
        """Tell the client which host it was, unless it knows."""
        data = stream.data
        if self not in data:
            return None  # a filter before this one has answered
        address, host, stats = data[self], stream.host, self.stats
        if address is None or self.state is None:
            if host is not None and stats is not None:
                stats.no_session += 1
        elif host is None:
            if stats is not None and self.strict and stream.response_flags & flag.NO_HEALTHY_UPSTREAM:
                stats.failed_closed += 1
        elif host.address.text == address:
            if stats is not None:
                stats.routed += 1
        else:
            if stream.response is not None:
                self.state.keep(host.address.text, stream.response)
            if stats is not None and not self.strict:
                stats.failed_open += 1
        return None


def make_stateful_session(config: StatefulSession, name: str, context: FilterContext) -> NamedFilter:
    """The filter for a chain or a route; one that does nothing where there are neither sessions nor statistics."""
    worker = context.worker
    state = config.session_state
    if state is None and not config.stat_prefix:
        return NamedFilter(name)
    return StatefulSessionFilter(
        name,
        None if state is None else make_state(state, lambda: worker.epoch + worker.clock()),
        config.strict,
        context.stats("stateful_session", config.stat_prefix) if config.stat_prefix else None,
    )
