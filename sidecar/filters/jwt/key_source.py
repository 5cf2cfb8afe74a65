"""Where the keys of a provider come from: the configuration, a file, or a server that is asked now and then.

Source: Envoy's ``RemoteJwks`` and ``JwksAsyncFetch``. A fetch is shared by all requests that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from math import inf
from typing import Any, Final, Protocol

from sidecar.config.filters.jwt_authn import LocalJwks, RemoteJwks
from sidecar.core.client import ClientOptions, Clients, Exchange, RequestFailed
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.filters.context import WaitFor, WatchFiles
from sidecar.filters.jwt.keys import KeySet, read_keys, read_keys_in_pieces

log = logging.getLogger("sidecar.filters.jwt")

_BEFORE_EXPIRY: Final = 5.0
"""Seconds before keys expire at which they are fetched again where that is done in the background."""

_USER_AGENT: Final = (b"user-agent", b"Go-browser")
"""What Envoy says here: some issuers refuse who says nothing."""

_MAX_JWKS: Final = 1 << 18
"""The largest answer, in bytes, that is read: more would hold all other requests up."""

_AT_ONCE: Final = 16
"""How many requests that wait go on in one turn of the loop: each checks a signature and goes its way upstream."""


_MOST_WAITING: Final = 4096
"""Requests that wait for the keys of one provider in one worker: connections bound them no more where each has many streams."""


class FetchStats(Protocol):
    """What is counted of fetches."""

    jwks_fetch_failed: int
    jwks_waiting_overflow: int
    jwks_fetch_success: int


class KeySource:
    """Keys, valid until ``expires`` (in seconds of the worker's clock); ``on_change`` is called when they are others."""

    __slots__ = ("expires", "keys", "on_change")

    def __init__(self) -> None:
        self.keys: KeySet | None = None
        self.expires = inf
        self.on_change: Callable[[], None] | None = None

    def take(self, keys: KeySet) -> None:
        """Use these from now on."""
        known, self.keys = self.keys, keys
        if (known is None or known.source != keys.source) and self.on_change is not None:
            self.on_change()

    def fetch(self, done: Callable[[bool], None]) -> bool:
        """Get keys, and say whether there are any: later, and then this is True. Where nobody can be asked it is False."""
        return False

    def close(self) -> None:
        """Look for changes no more."""


class LocalKeys(KeySource):
    """Keys of the configuration, or of a file. Raises ValueError and OSError for what cannot be used."""

    __slots__ = ("_cancel", "config")

    def __init__(self, config: LocalJwks, watch: WatchFiles) -> None:
        KeySource.__init__(self)
        self.config = config
        self._cancel: Callable[[], None] | None = None
        self.take(read_keys(self._read()))
        if config.watched:
            self._cancel = watch((config.watched_directory or config.filename, config.filename), self._changed)

    def _read(self) -> bytes:
        if not self.config.filename:
            return self.config.inline
        with open(self.config.filename, "rb") as file:
            return file.read()

    def _changed(self) -> None:
        try:
            keys = read_keys(self._read())
        except (OSError, ValueError) as error:
            log.warning("%s %s; the keys that were read before stay in use", self.config.filename, error)
            return
        self.take(keys)

    def close(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def __repr__(self) -> str:
        return f"<LocalKeys {self.keys!r} of {self.config.filename or 'the configuration'}>"


class RemoteKeys(KeySource):
    """Keys that a server has: asked when a request needs them and they are missing or old, or else in the background."""

    __slots__ = ("_client", "_clients", "closed", "_exchange", "_fetching", "_overflowing", "_refetch", "_stats",
                 "_there", "_waiting", "_worker", "config")  # fmt: skip

    def __init__(self, config: RemoteJwks, worker: Worker, clients: Callable[[], Clients], stats: FetchStats) -> None:
        KeySource.__init__(self)
        self.config = config
        self.expires = -inf
        self._worker = worker
        self._clients = clients
        self._client: Any = None
        self._stats = stats
        self._exchange: Exchange | None = None
        self._fetching = False
        self._waiting: list[Callable[[bool], None]] = []
        self._overflowing = False
        self._there: Callable[[], None] | None = None
        self._refetch: Callback | None = None
        self.closed = False

    def start(self, wait_for: WaitFor) -> None:
        """Begin to fetch in the background, if that is configured."""
        fetch = self.config.async_fetch
        if fetch is not None:
            uri = f"{self.config.authority.decode('latin-1')}{self.config.path.decode('latin-1')}"
            wait_for(f"Jwks async fetching url={uri}", self._begin)

    def _begin(self, there: Callable[[], None]) -> None:
        assert self.config.async_fetch is not None
        if self.config.async_fetch.fast_listener:
            there()
        else:
            self._there = there
        self._ask()

    def fetch(self, done: Callable[[bool], None]) -> bool:
        if len(self._waiting) >= _MOST_WAITING:
            self._overflow()
            done(False)
            return True
        self._waiting.append(done)
        self._ask()
        return True

    def _overflow(self) -> None:
        self._stats.jwks_waiting_overflow += 1
        if not self._overflowing:
            self._overflowing = True
            log.warning(
                "%d requests wait for the keys of %s: others are refused until they are there",
                _MOST_WAITING,
                self.config.cluster,
            )

    def _ask(self) -> None:
        if self._fetching:
            return
        self._fetching = True
        config = self.config
        if self._client is None:
            options = ClientOptions(config.timeout, retry=config.retry_policy, max_response_bytes=_MAX_JWKS)
            self._client = self._clients().http(config.cluster, options)
        exchange = self._client.request(RequestHead(b"GET", config.path, config.authority, [_USER_AGENT]), b"", self)
        self._exchange = exchange if self._fetching else None

    def on_response(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        """The server's answer."""
        wrong = f"has status {head.status}" if head.status != 200 else "" if body else "is empty"
        if wrong:
            self._failed(f"the answer {wrong}")
        else:
            self._read(read_keys_in_pieces(body))

    def _read(self, reading: Generator[None, None, KeySet]) -> None:
        """Read some keys of the answer, and the others later."""
        try:
            next(reading)
        except StopIteration as end:
            self._succeeded(end.value)
        except ValueError as error:
            self._failed(f"the answer {error}")
        except Exception as error:  # whatever an issuer says: those who wait are answered, and it is asked again
            log.exception("keys of %s cannot be read", self.config.cluster)
            self._failed(f"the answer cannot be read ({type(error).__name__})")
        else:
            self._worker.wheel.call_in(0.0, lambda: self._read(reading))

    def _succeeded(self, keys: KeySet) -> None:
        self._stats.jwks_fetch_success += 1
        background = self.config.async_fetch is not None
        self.expires = inf if background else self._worker.clock() + self.config.cache_duration
        self.take(keys)
        duration = self.config.cache_duration
        self._done(True, duration - _BEFORE_EXPIRY if duration > _BEFORE_EXPIRY else duration)

    def on_failure(self, failure: RequestFailed) -> None:
        """There is no answer."""
        self._failed(failure.details)

    def _failed(self, why: str) -> None:
        log.warning("keys cannot be fetched from %s: %s", self.config.cluster, why)
        self._stats.jwks_fetch_failed += 1
        fetch = self.config.async_fetch
        self._done(False, 0.0 if fetch is None else fetch.failed_refetch_duration)

    def _done(self, success: bool, next_fetch: float) -> None:
        self._fetching = False
        self._exchange = None
        there, self._there = self._there, None
        if there is not None:
            there()
        if self.config.async_fetch is not None and not self.closed:
            wheel = self._worker.wheel
            if self._refetch is not None:
                wheel.cancel(self._refetch)
            self._refetch = wheel.call_in(next_fetch, self._ask)
        waiting, self._waiting = self._waiting, []
        self._overflowing = False
        self._let_go(waiting, 0, success)

    def _let_go(self, waiting: list[Callable[[bool], None]], start: int, success: bool) -> None:
        """Those who wait go on, some in each turn of the loop."""
        end = start + _AT_ONCE
        if end < len(waiting):
            self._worker.wheel.call_in(0.0, lambda: self._let_go(waiting, end, success))
        for done in waiting[start:end]:
            done(success)

    def close(self) -> None:
        self.closed = True
        if self._refetch is not None:
            self._worker.wheel.cancel(self._refetch)
            self._refetch = None

    def __repr__(self) -> str:
        return f"<RemoteKeys {self.keys!r} of {self.config.cluster}>"
