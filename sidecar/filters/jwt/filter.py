"""The jwt_authn filter itself: which requirement a request has to meet, waiting for keys, and the refusal.

Source: Envoy's ``extensions.filters.http.jwt_authn.v3`` and RFC 6750 section 3 for ``www-authenticate``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from sidecar.config.filters.jwt_authn import (
    JwtAuthentication,
    JwtPerRoute,
    JwtProvider,
    JwtRequirement,
    RemoteJwks,
    RequirementRule,
)
from sidecar.config.route_match import RouteMatch
from sidecar.core import response_flags as flag
from sidecar.core.explanation import ENDS, OPEN, PASSES, Step
from sidecar.core.head import RequestHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.jwt.extraction import Extraction
from sidecar.filters.jwt.key_source import KeySource, LocalKeys, RemoteKeys
from sidecar.filters.jwt.provider import Provider
from sidecar.filters.jwt.remembered import Quick, compile_quick, leave_metadata
from sidecar.filters.jwt.requirements import PENDING, Attempt, Requirement, compile_requirement, describe_requirement
from sidecar.filters.jwt.status import AUDIENCE_NOT_ALLOWED, MISSING, OK, Status

log = logging.getLogger("sidecar.filters.jwt")

DETAILS: Final = "jwt_authn_access_denied"
_LONGEST_PATH: Final = 256
_REALM: Final = b"www-authenticate"


class JwtStats(Protocol):
    """What the filter counts."""

    allowed: int
    cors_preflight_bypassed: int
    denied: int
    jwks_fetch_failed: int
    jwks_waiting_overflow: int
    jwks_fetch_success: int
    jwt_cache_hit: int
    jwt_cache_miss: int


class JwtDecision(NamedTuple):
    """What the filter says of a request, and why.

    ``asked_by`` is the rule, route or filter state that the requirement comes from, ``requirement`` the requirement in words;
    ``steps`` has, for each provider and token that was looked at, what came of it: where it failed, the first thing that did.
    """

    asked_by: str
    requirement: str
    status: Status
    steps: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return self.status is OK

    @property
    def outcome(self) -> str:
        """The status in words."""
        return self.status.message


class _Compiled(NamedTuple):
    """A requirement with its short way."""

    config: JwtRequirement
    requirement: Requirement
    quick: Quick | None


Test = Callable[[RequestHead], bool]


class JwtAuthn:
    """What the instances of one filter share: providers, requirements, statistics."""

    __slots__ = ("_first_is_for_all", "bypass_cors", "context", "named", "providers", "rules", "sanitized", "state_name",
                 "states", "stats", "strip", "wall_clock")  # fmt: skip

    def __init__(self, config: JwtAuthentication, context: FilterContext, wall_clock: Callable[[], float]) -> None:
        self.context = context
        self.wall_clock = wall_clock
        self.stats: JwtStats = context.stats("jwt_authn", config.stat_prefix)
        self.strip = config.strip_failure_response
        self.bypass_cors = config.bypass_cors_preflight
        self.providers = {name: self._provider(one) for name, one in config.providers.items()}
        self.sanitized = frozenset(Extraction(config.providers.values()).sanitized)
        self.rules = tuple(self._rule(one) for one in config.rules)
        self._first_is_for_all = bool(config.rules) and config.rules[0].match == RouteMatch("prefix", b"/")
        self.named = {name: self.compile(one) for name, one in config.requirement_map.items()}
        self.state_name = config.filter_state_name
        self.states = {value: self.compile(one) for value, one in config.filter_state_rules.items()}

    def _provider(self, config: JwtProvider) -> Provider:
        context = self.context
        keys: KeySource
        if isinstance(config.jwks, RemoteJwks):
            remote = keys = RemoteKeys(config.jwks, context.worker, context.clients, self.stats)
            remote.start(context.wait_for)
        else:
            try:
                keys = LocalKeys(config.jwks, context.watch_files)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise ValueError(
                    f"jwt_authn: provider {config.name!r}: local_jwks {reason}; give it a JWKS with a key that can be used"
                ) from None
        return Provider(config, keys, context.worker.clock)

    def _rule(self, rule: RequirementRule) -> tuple[Test, _Compiled | None]:
        test = self.context.compile_route_match(rule.match)
        return test, None if rule.requires is None else self.compile(rule.requires)

    def compile(self, config: JwtRequirement) -> _Compiled:
        """A requirement ready to decide."""
        return _Compiled(
            config,
            compile_requirement(config, self.providers),
            compile_quick(config, self.providers, self.sanitized, self.stats, self.wall_clock),
        )

    @property
    def quick(self) -> Quick | None:
        """The short way where one rule is for all requests whose path begins with a slash."""
        return self.rules[0][1].quick if self._first_is_for_all and self.rules[0][1] is not None else None

    def find(self, stream: FilterStream) -> tuple[_Compiled | None, str]:
        """What is asked of a request, and by what."""
        request = stream.request
        for number, (test, compiled) in enumerate(self.rules):
            if test(request):
                return compiled, f"rules[{number}]"
        state = stream.filter_state
        if self.state_name and state is not None:
            value = state.get(self.state_name)
            found = self.states.get(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
            if found is not None:
                return found, f"filter_state_rules for {self.state_name}"
        return None, "no rule"


class JwtAuthnFilter(NamedFilter):
    """Decides by the rules of the filter."""

    __slots__ = ("_quick", "shared")

    back_pressure = True

    def __init__(self, name: str, shared: JwtAuthn) -> None:
        NamedFilter.__init__(self, name)
        self.shared = shared
        self._quick = None if shared.bypass_cors else shared.quick

    def find(self, stream: FilterStream) -> tuple[_Compiled | None, str]:
        """What is asked of a request, and by what."""
        return self.shared.find(stream)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Let the request pass, refuse it, or hold it until keys have come."""
        quick = self._quick
        if quick is not None and quick(stream):
            return None
        shared = self.shared
        request = stream.request
        if shared.sanitized and not shared.sanitized.isdisjoint(request.index):
            request.remove_all(shared.sanitized)  # only tokens say what stands in these headers
        if shared.bypass_cors and _is_preflight(request):
            shared.stats.cors_preflight_bypassed += 1
            shared.stats.allowed += 1
            return None
        compiled = self.find(stream)[0]
        if compiled is None:
            shared.stats.allowed += 1
            return None
        if compiled.quick is not None and compiled.quick is not quick and compiled.quick(stream):
            return None
        return self._decide(stream, compiled.requirement, Attempt(request, shared.wall_clock()))

    def explain(self, stream: FilterStream) -> JwtDecision:
        """What is asked of this request, and whether its tokens meet it; nothing is changed, fetched or counted."""
        return self._try(stream, stream.request.copy())[0]

    def rehearse(self, stream: FilterStream) -> Step:
        """See ``HttpFilter``. Keys that are not there are not fetched."""
        title = f"http filter {self.name}"
        decision, attempt = self._try(stream, stream.request)
        why = f"{decision.asked_by} asks for {decision.requirement}"
        if attempt is not None and attempt.extracted:
            leave_metadata(stream, attempt.extracted)
        if attempt is not None and attempt.clear_route and decision.allowed:
            stream.clear_route_cache(self)
        if decision.status is PENDING:
            text = f"{title}: keys would have to be fetched first: {why}"
            return Step("http filter", self.name, OPEN, text, decision.steps)
        if decision.allowed:
            return Step("http filter", self.name, PASSES, f"{title}: passes: {why}", decision.steps)
        code = 403 if decision.status is AUDIENCE_NOT_ALLOWED else 401
        stream.reply(code, decision.outcome.encode(), details=denied_details(decision.outcome))
        return Step("http filter", self.name, ENDS, f"{title}: denies: {decision.outcome}; {why}", decision.steps)

    def _try(self, stream: FilterStream, request: RequestHead) -> tuple[JwtDecision, Attempt | None]:
        request.remove_all(self.shared.sanitized)
        if self.shared.bypass_cors and _is_preflight(request):
            return JwtDecision("bypass_cors_preflight", "nothing", OK, ()), None
        compiled, asked_by = self.find(stream)
        if compiled is None:
            return JwtDecision(asked_by, "nothing", OK, ()), None
        attempt = Attempt(request, self.shared.wall_clock())
        attempt.notes = []
        status = compiled.requirement.decide(attempt)
        words = describe_requirement(compiled.config)
        return JwtDecision(asked_by, words, status, tuple(attempt.notes)), attempt

    def close(self) -> None:
        """Fetch and watch keys no more."""
        for provider in self.shared.providers.values():
            provider.keys.close()

    def _decide(self, stream: FilterStream, requirement: Requirement, attempt: Attempt) -> bool | None:
        status = requirement.decide(attempt)
        while status is PENDING:
            attempt.undo()
            if not self._has_asked(stream, requirement, attempt):
                return PAUSE
            status = requirement.decide(attempt)
        stats = self.shared.stats
        stats.jwt_cache_hit += attempt.hits
        stats.jwt_cache_miss += attempt.misses
        if attempt.extracted:
            leave_metadata(stream, attempt.extracted)
        if status is not OK:
            return self._refuse(stream, status, attempt)
        stats.allowed += 1
        if attempt.unsendable:
            wrong = f"invalid header value for: {attempt.unsendable.decode('latin-1')}"
            details = _details("filter_removed_required_request_headers", wrong)
            return stream.reply(503, wrong.encode(), details=details, flags=flag.DOWNSTREAM_PROTOCOL_ERROR)
        if attempt.clear_route:
            stream.clear_route_cache(self)
        return None

    def _has_asked(self, stream: FilterStream, requirement: Requirement, attempt: Attempt) -> bool:
        """Ask for the keys that an attempt needs; True if the answer is there already."""
        provider = attempt.waits_for
        assert provider is not None
        asking = True

        def done(success: bool) -> None:
            attempt.fetched[provider] = success
            if not asking and not stream.over:
                self._go_on(stream, requirement, attempt)

        if not provider.keys.fetch(done):
            attempt.fetched[provider] = True
        asking = False
        return provider in attempt.fetched

    def _go_on(self, stream: FilterStream, requirement: Requirement, attempt: Attempt) -> None:
        worker = self.shared.context.worker
        stream.now = worker.clock()
        attempt.now = self.shared.wall_clock()
        try:
            if self._decide(stream, requirement, attempt) is None:
                stream.resume_request()
        except Exception:
            log.exception("HTTP filter %s failed; the request is answered with 500", self.name)
            stream.reply(500, b"", details="filter_failed")
        worker.cork.settle()

    def _refuse(self, stream: FilterStream, status: Status, attempt: Attempt) -> bool:
        self.shared.stats.denied += 1
        code = 403 if status is AUDIENCE_NOT_ALLOWED else 401
        details = denied_details(status.message)
        if self.shared.strip:
            return stream.reply(code, details=details)
        challenge = b'Bearer realm="%b"' % _original_uri(attempt)
        if status is not MISSING:
            challenge += b', error="invalid_token"'
        return stream.reply(code, status.message.encode(), details=details, headers=[(_REALM, challenge)])


class RouteJwtAuthnFilter(JwtAuthnFilter):
    """On a route that names its requirement, or asks for nothing."""

    __slots__ = ("_compiled",)

    def __init__(self, name: str, shared: JwtAuthn, compiled: _Compiled | None) -> None:
        JwtAuthnFilter.__init__(self, name, shared)
        self._compiled = compiled
        self._quick = None if compiled is None or shared.bypass_cors else compiled.quick

    def find(self, stream: FilterStream) -> tuple[_Compiled | None, str]:
        return self._compiled, "the route"


class WrongRouteFilter(JwtAuthnFilter):
    """On a route that names a requirement that there is not: every request is refused."""

    __slots__ = ("_message",)

    def __init__(self, name: str, shared: JwtAuthn, message: str) -> None:
        JwtAuthnFilter.__init__(self, name, shared)
        self._message = message
        self._quick = None

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Refuse it."""
        shared = self.shared
        if shared.bypass_cors and _is_preflight(stream.request):
            return JwtAuthnFilter.on_request(self, stream, end)
        shared.stats.denied += 1
        body = b"" if shared.strip else f"Failed JWT authentication: {self._message}".encode()
        return stream.reply(403, body, details=denied_details(self._message))

    def explain(self, stream: FilterStream) -> JwtDecision:
        """Why it is refused."""
        return JwtDecision("the route", "a requirement that there is not", Status(-1, self._message), ())

    def rehearse(self, stream: FilterStream) -> Step:
        """See ``HttpFilter``."""
        stream.reply(403, self._message.encode(), details=denied_details(self._message))
        return Step("http filter", self.name, ENDS, f"http filter {self.name}: denies: {self._message}")


def denied_details(message: str) -> str:
    """The response code details of a refusal; white space becomes ``_``."""
    return _details(DETAILS, message)


def _details(kind: str, message: str) -> str:
    return f"{kind}{{{''.join('_' if letter.isspace() else letter for letter in message)}}}"


def _is_preflight(request: RequestHead) -> bool:
    return bool(
        request.method == b"OPTIONS"
        and request.index.get(b"origin")
        and request.index.get(b"access-control-request-method")
    )


def _original_uri(attempt: Attempt) -> bytes:
    request = attempt.request
    path = request.index.get(b"x-envoy-original-path") or attempt.path
    return b"%b://%b%b" % (request.scheme, request.authority, path[:_LONGEST_PATH]) if path else b""


def make_jwt_authn(
    config: JwtAuthentication, name: str, context: FilterContext, wall_clock: Callable[[], float] = time.time
) -> JwtAuthnFilter:
    """The chain's own instance. Raises ValueError for local keys that cannot be used. ``wall_clock`` tells seconds since the
    epoch; it may jump, and tokens are judged by what it says at each request.
    """
    return JwtAuthnFilter(name, JwtAuthn(config, context, wall_clock))


def make_route_jwt_authn(base: JwtAuthnFilter, config: JwtPerRoute) -> JwtAuthnFilter:
    """What stands in the place of ``base`` on a route; it shares providers, tokens and statistics with it."""
    shared = base.shared
    if config.disabled:
        return RouteJwtAuthnFilter(base.name, shared, None)
    compiled: Mapping[str, _Compiled] = shared.named
    found = compiled.get(config.requirement_name)
    if found is not None:
        return RouteJwtAuthnFilter(base.name, shared, found)
    names = ",".join(sorted(compiled))
    message = f"Wrong requirement_name: {config.requirement_name}. It should be one of [{names}]"
    return WrongRouteFilter(base.name, shared, message)
