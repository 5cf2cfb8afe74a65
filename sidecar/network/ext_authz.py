"""The network filter `ext_authz`: asks a service whether a connection may come, which waits for the answer, unread.

Source: Envoy's ``extensions.filters.network.ext_authz.v3.ExtAuthz``. Envoy asks with the first byte, by when the upstream
connection is open already; here nothing is opened for those who are not let in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sidecar.config.network_ext_authz import NetworkExtAuthz
from sidecar.core.authorization import DENIED, ERROR, Answer, AuthorizationService
from sidecar.core.check_request import Told, check_of_connection
from sidecar.core.client import Exchange
from sidecar.core.connection_filter import ASKING, Decide
from sidecar.core.metadata_match import compile_metadata
from sidecar.core.stream_info import ConnectionInfo

METADATA: Final = "envoy.filters.network.ext_authz"


class ExtAuthzStats(Protocol):
    """`ext_authz.<stat_prefix>.`"""

    cx_closed: int
    denied: int
    disabled: int
    error: int
    failure_mode_allowed: int
    ok: int
    total: int
    active: int


class _Question:
    """What is asked of one connection; it hears the answer, and can be cancelled until then."""

    __slots__ = ("_decide", "_exchange", "_filter", "_info", "_start")

    def __init__(self, filter: ExtAuthz, info: ConnectionInfo, decide: Decide) -> None:
        self._filter = filter
        self._info = info
        self._decide = decide
        self._exchange: Exchange | None = None
        self._start = filter.clock()

    def ask(self, service: AuthorizationService, message: bytes) -> None:
        self._filter.stats.active += 1
        self._exchange = service.ask(message, self)

    def on_answer(self, answer: Answer) -> None:
        self._filter.stats.active -= 1
        self._decide(self._filter.judge(self._info, answer, self._filter.clock() - self._start))

    def cancel(self) -> None:
        """The connection is gone."""
        if self._exchange is not None:
            self._filter.stats.active -= 1
            self._exchange.cancel()


class ExtAuthz:
    """Asks once for each connection, before a byte of it is read; behind TLS, when the handshake is done."""

    __slots__ = ("_enabled_by", "_service", "_told", "clock", "config", "stats")

    def __init__(
        self,
        config: NetworkExtAuthz,
        stats: ExtAuthzStats,
        service: AuthorizationService,
        labels: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self.config = config
        self.stats = stats
        self.clock = clock
        self._service = service
        self._told = Told(config.include_peer_certificate, config.include_tls_session, labels)
        matcher = config.filter_enabled_metadata
        self._enabled_by = None if matcher is None else compile_metadata(matcher)

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        if self._enabled_by is not None and not self._enabled_by(info.metadata):
            self.stats.disabled += 1
            return None
        return ASKING

    def ask(self, info: ConnectionInfo, decide: Decide) -> _Question:
        """Ask the service; ``decide`` may be called before this returns."""
        self.stats.total += 1
        question = _Question(self, info, decide)
        question.ask(self._service, check_of_connection(info, self._told, self.config.metadata_context_namespaces))
        return question

    def judge(self, info: ConnectionInfo, answer: Answer, duration: float) -> float | None:
        """None to let the connection pass, else in how many seconds to close it; ``duration`` is in seconds."""
        stats, outcome = self.stats, answer.outcome
        if answer.dynamic_metadata:
            told = answer.dynamic_metadata
            if outcome not in (DENIED, ERROR):
                told = {**told, "ext_authz_duration": int(duration * 1000)}
            info.metadata = {**(info.metadata or {}), METADATA: told}
        if outcome == DENIED:
            stats.denied += 1
        elif outcome == ERROR:
            stats.error += 1
            if self.config.failure_mode_allow:
                stats.failure_mode_allowed += 1
                return None
        else:
            stats.ok += 1
            return None
        stats.cx_closed += 1
        info.termination_details = "ext_authz_denied" if outcome == DENIED else "ext_authz_error"
        return 0.0

    def on_close(self, info: ConnectionInfo) -> None:
        """Nothing is kept."""

    def __repr__(self) -> str:
        return f"<ExtAuthz {self.config.stat_prefix} {self._service!r}>"
