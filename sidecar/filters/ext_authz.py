"""The ext_authz filter: asks a service whether a request may pass, and holds it until there is an answer.

Source: Envoy's ``extensions.filters.http.ext_authz.v3.ExtAuthz``. Whatever is not plainly an OK ends the request, unless the
configuration says `failure_mode_allow`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import starmap
from typing import Any, Final, Protocol

from sidecar.config.filters.ext_authz import (
    Authorization,
    BufferSettings,
    ExtAuthz,
    ExtAuthzPerRoute,
    GrpcAuthorization,
    HttpAuthorization,
)
from sidecar.core import response_flags as flag
from sidecar.core.answer_changes import change_request, change_response, is_valid
from sidecar.core.authorization import DENIED, ERROR, Answer, AnswerSink, AuthorizationService, Change
from sidecar.core.check_request import Body, Told, ToldOfRequests, Wanted, check_of_request, labels_of
from sidecar.core.client import Exchange
from sidecar.core.explanation import ENDS, OPEN, PASSES, Step
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.core.matching import compile_strings
from sidecar.core.metadata_match import compile_metadata
from sidecar.core.mutation_rules import compile_mutation_rules
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.ext_authz_http import HttpAuthorizationService, always_shown
from sidecar.filters.fraction import compile_fraction
from sidecar.filters.rate_limit_actions import cluster_of

METADATA: Final = "envoy.filters.http.ext_authz"
DENIED_DETAILS: Final = "ext_authz_denied"
ERROR_DETAILS: Final = "ext_authz_error"
INVALID_DETAILS: Final = "ext_authz_invalid"
FAILURE_MODE_ALLOWED: Final = b"x-envoy-auth-failure-mode-allowed"

_TOO_LARGE: Final = "request_payload_too_large"
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_MOST_CLUSTERS: Final = 1000  # clients may name clusters where a header chooses them
_MOST_RESPONSE_HEADERS: Final = 100
_PSEUDO_HEADERS: Final = 4

Ask = Callable[[Any, Body | None, AnswerSink], Exchange]
"""Asks a service about a stream and its body."""


class ExtAuthzStats(Protocol):
    """`http.<stat_prefix>.ext_authz.`"""

    denied: int
    disabled: int
    error: int
    failure_mode_allowed: int
    ignored_dynamic_metadata: int
    invalid: int
    ok: int
    request_header_limits_reached: int
    response_header_limits_reached: int


class ClusterStats(Protocol):
    """What is counted at the cluster that a request goes to: ``counts`` by leaf name."""

    counts: dict[str, int]


class _Call:
    """What the filter does to one stream; it is the sink of the service's answer."""

    __slots__ = ("answered", "asking", "changes", "exchange", "filter", "pieces", "reroutes", "size", "start", "stream")

    def __init__(self, filter: ExtAuthzFilter) -> None:
        self.filter = filter
        self.stream: FilterStream | None = None  # while the service is asked
        self.exchange: Exchange | None = None
        self.asking = False  # the question is being sent
        self.answered = False  # by the filter
        self.reroutes = False
        self.pieces: list[bytes] | None = None  # of the body, as long as it is collected
        self.size = 0
        self.start = 0.0
        self.changes: Sequence[Change] = ()  # of the response

    def on_answer(self, answer: Answer) -> None:
        stream, self.stream, self.exchange = self.stream, None, None
        assert stream is not None
        self.filter.on_answer(self, stream, answer)


class ExtAuthzFilter(NamedFilter):
    """Asks before anything of the request goes on; the body, if there is one, waits unread."""

    __slots__ = ("_ask", "_check", "_cluster_stats", "_context", "_enabled", "_enabled_by", "buffer", "config", "route",
                 "stats")  # fmt: skip

    back_pressure = True

    def __init__(
        self,
        name: str,
        config: ExtAuthz,
        context: FilterContext,
        stats: ExtAuthzStats,
        ask: Ask,
        route: ExtAuthzPerRoute,
        buffer: BufferSettings | None,
    ) -> None:
        NamedFilter.__init__(self, name)
        self.config = config
        self.route = route
        self.stats = stats
        self.buffer = buffer
        self._context = context
        self._ask = ask
        matcher, rules = config.filter_enabled_metadata, config.decoder_header_mutation_rules
        self._enabled = None if config.filter_enabled is None else compile_fraction(config.filter_enabled)
        self._enabled_by = None if matcher is None else compile_metadata(matcher)
        self._check = None if rules is None else compile_mutation_rules(rules)
        self._cluster_stats: dict[str, ClusterStats] = {}

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Ask the service, and hold the request until it has answered."""
        if stream.route is None:
            return None
        enabled = self._enabled is None or self._enabled(stream.random)
        if not (enabled and (self._enabled_by is None or self._enabled_by(stream.dynamic_metadata))):
            return self._pass_unasked(stream)
        call = stream.data[self] = _Call(self)
        if self._collects(stream, end):
            call.pieces = []
            return PAUSE
        self.ask(call, stream, None)
        if call.stream is not None or call.answered:
            return PAUSE
        if call.reroutes:
            stream.clear_route_cache(self)
        return None

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: the service is not asked. Says whether it would be, and which."""
        title = f"http filter {self.name}"
        config = self.config
        if stream.route is None:
            return Step("http filter", self.name, PASSES, f"{title}: does not ask: there is no route")
        share, matcher = config.filter_enabled, config.filter_enabled_metadata
        details = []
        skipped = ""
        if share is not None:
            details.append(f"filter_enabled: {share[0]} of {share[1]} requests")
            skipped = "" if share[0] else "filter_enabled is 0"
        if matcher is not None:
            met = self._enabled_by is not None and self._enabled_by(stream.dynamic_metadata)
            keys = "/".join((matcher.filter, *matcher.path))
            details.append(f"filter_enabled_metadata: {keys} {'fits' if met else 'does not fit'}")
            skipped = skipped if met else f"the dynamic metadata {keys} does not fit filter_enabled_metadata"
        if skipped:
            if not config.deny_at_disable:
                text = f"{title}: passes: does not ask, for {skipped}"
                return Step("http filter", self.name, PASSES, text, tuple(details))
            stream.reply(config.status_on_error, details=ERROR_DETAILS, flags=flag.UNAUTHORIZED_EXTERNAL_SERVICE)
            text = f"{title}: denies: does not ask, for {skipped}, and deny_at_disable is set"
            return Step("http filter", self.name, ENDS, text, tuple(details))
        if self.route.context_extensions:
            details.append(f"tells context extensions {', '.join(sorted(self.route.context_extensions))}")
        allowed = "the request passes" if config.failure_mode_allow else f"it gets {config.status_on_error}"
        details.append(f"without an answer {allowed}")
        service = self.route.service or config.service
        if isinstance(service, GrpcAuthorization):
            whom = f"the gRPC service at cluster {service.service.cluster_name!r}"
        else:
            whom = f"the HTTP service at cluster {service.cluster_name!r}"
        return Step("http filter", self.name, OPEN, f"{title}: asks {whom}", tuple(details))

    def _collects(self, stream: FilterStream, end: bool) -> bool:
        return False

    def _pass_unasked(self, stream: FilterStream) -> bool | None:
        self.stats.disabled += 1
        if not self.config.deny_at_disable:
            return None
        return stream.reply(
            self.config.status_on_error, details=ERROR_DETAILS, flags=flag.UNAUTHORIZED_EXTERNAL_SERVICE
        )

    def ask(self, call: _Call, stream: FilterStream, body: Body | None) -> None:
        """Send the question."""
        call.stream = stream
        call.asking = True
        call.start = self._context.worker.clock()
        exchange = self._ask(stream, body, call)
        call.asking = False
        if call.stream is not None:
            call.exchange = exchange

    def on_answer(self, call: _Call, stream: FilterStream, answer: Answer) -> None:
        """Let the request go on, or refuse it."""
        stream.now = self._context.worker.clock()
        if answer.unknown_action and self.config.validate_mutations:
            self._reject(call, stream)
        else:
            self._take_metadata(call, stream, answer)
            if answer.outcome == DENIED:
                self._deny(call, stream, answer)
            elif answer.outcome == ERROR:
                self._fail(call, stream, answer)
            else:
                self._pass(call, stream, answer)
        if not call.asking:
            self._context.worker.cork.settle()

    def _take_metadata(self, call: _Call, stream: FilterStream, answer: Answer) -> None:
        told = answer.dynamic_metadata
        if not told:
            return
        if not self.config.enable_dynamic_metadata_ingestion:
            self.stats.ignored_dynamic_metadata += 1
            return
        if answer.outcome not in (DENIED, ERROR):
            told = {**told, "ext_authz_duration": int((stream.now - call.start) * 1000)}
        metadata = stream.dynamic_metadata or {}
        stream.dynamic_metadata = {**metadata, METADATA: {**metadata.get(METADATA, {}), **told}}

    def _pass(self, call: _Call, stream: FilterStream, answer: Answer) -> None:
        cluster = cluster_of(stream)
        if not (
            all(is_valid(one.name, one.value) for one in answer.response_headers)
            and change_request(stream.request, answer, self._check, strict=self.config.validate_mutations)
        ):
            self._reject(call, stream)
            return
        if answer.request_headers and self._too_many(stream):
            self.stats.request_header_limits_reached += 1
            self._reject(call, stream)
            return
        self._count(cluster, "ok")
        self.stats.ok += 1
        call.changes = answer.response_headers
        call.reroutes = self.config.clear_route_cache and answer.changes_request
        if not call.asking:
            self._resume(call, stream)

    def _resume(self, call: _Call, stream: FilterStream) -> None:
        if call.reroutes:
            stream.clear_route_cache(self)
        stream.resume_request()

    def _too_many(self, stream: Any) -> bool:
        options = stream.manager.options
        fields = stream.request.fields
        if len(fields) + _PSEUDO_HEADERS > options.max_request_fields:
            return True
        return bool(sum(len(name) + len(value) for name, value in fields) > options.max_request_head_bytes)

    def _deny(self, call: _Call, stream: FilterStream, answer: Answer) -> None:
        config = self.config
        cluster = cluster_of(stream)
        self.stats.denied += 1
        self._count(cluster, "denied")
        if config.charge_cluster_response_stats and cluster:
            self._context.count_response(cluster, answer.status)
        self._reply(call, stream, answer, answer.status, DENIED_DETAILS)

    def _fail(self, call: _Call, stream: FilterStream, answer: Answer) -> None:
        config = self.config
        cluster = cluster_of(stream)
        self._count(cluster, "error")
        self.stats.error += 1
        if not config.failure_mode_allow:
            self._reply(call, stream, answer, answer.status or config.status_on_error, ERROR_DETAILS)
            return
        self.stats.failure_mode_allowed += 1
        self._count(cluster, "failure_mode_allowed")
        if config.failure_mode_allow_header_add:
            stream.request.add(FAILURE_MODE_ALLOWED, b"true")
        if not call.asking:
            stream.resume_request()

    def _reply(self, call: _Call, stream: FilterStream, answer: Answer, status: int, details: str) -> None:
        config = self.config
        headers = [
            field for field in answer.reply_headers if not field[0].startswith(b":") and field[0] not in _FRAMING
        ]
        if not (all(starmap(is_valid, headers)) and 200 <= status < 600):
            self._reject(call, stream)
            return
        body = answer.body
        if config.max_denied_response_body_bytes:
            body = body[: config.max_denied_response_body_bytes]
        call.answered = True
        stream.reply(status, body, details=details, flags=flag.UNAUTHORIZED_EXTERNAL_SERVICE, headers=headers)

    def _reject(self, call: _Call, stream: FilterStream) -> None:
        """The answer is no answer that can be acted on."""
        self._count(cluster_of(stream), "invalid")
        self.stats.invalid += 1
        call.answered = True
        stream.reply(500, details=INVALID_DETAILS, flags=flag.UNAUTHORIZED_EXTERNAL_SERVICE)

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Change what the service wants changed."""
        call: _Call | None = stream.data.get(self)
        if call is not None and call.changes and stream.response is not None:
            changes, call.changes = call.changes, ()
            change_response(stream.response, changes)
            stream.response_code = stream.response.status
            if self.config.enforce_response_header_limits and len(stream.response.fields) > _MOST_RESPONSE_HEADERS:
                self.stats.response_header_limits_reached += 1
                stream.call_in(0.0, partial(_refuse_response, stream))
                return PAUSE
        return None

    def on_complete(self, stream: FilterStream) -> None:
        """Ask no longer."""
        call: _Call | None = stream.data.pop(self, None)
        if call is not None and call.stream is not None:
            call.stream = None
            if call.exchange is not None:
                call.exchange.cancel()
                call.exchange = None

    def _count(self, cluster: str, name: str) -> None:
        if not cluster:
            return
        found = self._cluster_stats.get(cluster)
        if found is None:
            stat_name = self._context.cluster_stat_name(cluster)
            if stat_name is None:
                return
            found = self._context.stats("ext_authz_cluster", stat_name, self.config.stat_prefix)
            if len(self._cluster_stats) < _MOST_CLUSTERS:
                self._cluster_stats[cluster] = found
        found.counts[name] += 1


class BufferingExtAuthzFilter(ExtAuthzFilter):
    """Collects the body, or the beginning of it, and asks with it."""

    __slots__ = ()

    def _collects(self, stream: FilterStream, end: bool) -> bool:
        request = stream.request
        return not end and b"upgrade" not in request.index and request.method != b"CONNECT"

    def on_request_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        """Collect the body; ask when there is enough of it, and give it back to be held by the stream."""
        call: _Call | None = stream.data.get(self)
        if call is None or call.pieces is None:
            return data
        assert self.buffer is not None
        pieces, most = call.pieces, self.buffer.max_request_bytes
        pieces.append(data)
        call.size += len(data)
        if call.size > most and not self.buffer.allow_partial_message:
            call.pieces = None
            stream.refuse(413, b"Payload Too Large", _TOO_LARGE)
            return b""
        if not end and (call.size < most or not self.buffer.allow_partial_message):
            return b""
        call.pieces = None
        body = b"".join(pieces)
        self.ask(call, stream, Body(body[:most], len(body) > most))
        if call.stream is None and not call.answered:  # there is an answer already
            self._resume(call, stream)
        return body


class UnaskedFilter(NamedFilter):
    """The filter on a route that has switched it off."""

    __slots__ = ()

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``."""
        text = f"http filter {self.name}: passes: does not ask: it is disabled for this route"
        return Step("http filter", self.name, PASSES, text)


def _refuse_response(stream: FilterStream) -> None:
    stream.reply(500, details=INVALID_DETAILS, flags=flag.UNAUTHORIZED_EXTERNAL_SERVICE)


def make_ext_authz(config: ExtAuthz, name: str, context: FilterContext) -> NamedFilter:
    """The chain's filter, with a client of its own."""
    stats = context.stats("ext_authz", config.stat_prefix)
    return _make(name, config, context, stats, ExtAuthzPerRoute())


def make_route_ext_authz(
    base: Any, config: ExtAuthzPerRoute, levels: Sequence[ExtAuthzPerRoute], context: FilterContext
) -> NamedFilter:
    """The same for a route that has settings of its own; the context extensions of all ``levels`` go together."""
    if config.disabled:
        return UnaskedFilter(base.name)
    extensions: dict[str, str] = {}
    for level in levels:
        extensions.update(level.context_extensions)
    route = ExtAuthzPerRoute(
        False, extensions, config.disable_request_body_buffering, config.with_request_body, config.service
    )
    return _make(base.name, base.config, context, base.stats, route)


def _make(
    name: str, config: ExtAuthz, context: FilterContext, stats: ExtAuthzStats, route: ExtAuthzPerRoute
) -> ExtAuthzFilter:
    buffer = route.with_request_body or config.with_request_body
    if route.disable_request_body_buffering or (buffer is not None and not buffer.max_request_bytes):
        buffer = None
    ask = _compile_ask(config, route.service or config.service, route.context_extensions, context)
    kind = ExtAuthzFilter if buffer is None else BufferingExtAuthzFilter
    return kind(name, config, context, stats, ask, route, buffer)


def _compile_ask(
    config: ExtAuthz, service: Authorization, extensions: Mapping[str, str], context: FilterContext
) -> Ask:
    wanted = _compile_wanted(config)
    if isinstance(service, HttpAuthorization):
        return HttpAuthorizationService(context, service, wanted).ask
    labels = labels_of(context.node_metadata, config.bootstrap_metadata_labels_key)
    told = Told(config.include_peer_certificate, config.include_tls_session, labels)
    of_requests = ToldOfRequests(
        wanted,
        config.encode_raw_headers,
        config.with_request_body is not None and config.with_request_body.pack_as_bytes,
        config.metadata_context_namespaces,
        config.route_metadata_context_namespaces,
    )
    client = AuthorizationService(context.clients(), service)

    def ask(stream: Any, body: Body | None, sink: AnswerSink) -> Exchange:
        return client.ask(check_of_request(stream, body, told, of_requests, extensions), sink)

    return ask


def _compile_wanted(config: ExtAuthz) -> Wanted | None:
    """Which headers the service sees, None for all. An HTTP service sees few unless more are named."""
    allowed: Wanted | None = None
    service = config.service
    if isinstance(service, GrpcAuthorization):
        if config.allowed_headers is not None:
            allowed = compile_strings(config.allowed_headers)
    else:
        allowed = always_shown(service.allowed_headers or config.allowed_headers or ())
    if not config.disallowed_headers:
        return allowed
    disallowed = compile_strings(config.disallowed_headers)
    if allowed is None:
        return lambda name: not disallowed(name)
    return lambda name: allowed(name) and not disallowed(name)
