"""Requirements decided: one attempt for one request, which may have to wait for keys and then begins again.

Source: Envoy's ``JwtRequirement``. A request that carries several tokens in the places of a provider must have them all good:
else what stands behind the proxy may take the bad one for the one that was verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from sidecar.config.filters.jwt_authn import (
    AllowMissing,
    AllowMissingOrFailed,
    JwtRequirement,
    RequireAll,
    RequireAny,
    RequireNothing,
    RequireProvider,
)
from sidecar.core.head import Field, RequestHead, index_of
from sidecar.filters.jwt.extraction import Extraction, Found
from sidecar.filters.jwt.provider import Provider, add_fields, compile_audiences
from sidecar.filters.jwt.status import FETCH_FAILED, MISSING, OK, UNKNOWN_ISSUER, Status
from sidecar.filters.jwt.token import Token, read_token

PENDING: Final = Status(-1, "waits for keys")
"""Keys are being fetched: the attempt is made again when they are there."""


class Attempt:
    """What is found out about one request. ``now`` is the wall clock's time in seconds.

    ``fetched`` has the providers whose keys have been asked for, and whether they came; ``waits_for`` is the one whose keys
    are to be asked for when the outcome is ``PENDING``. ``unsendable`` is the first header that a token would set and that no
    request can carry. ``notes``, if it is a list, gets a line for each token and provider.
    """

    __slots__ = ("_before", "clear_route", "extracted", "fetched", "hits", "misses", "notes", "now", "path", "request",
                 "tokens", "unsendable", "waits_for")  # fmt: skip

    def __init__(self, request: RequestHead, now: float) -> None:
        self.request = request
        self.path = request.path  # as it came
        self.now = now
        self.extracted: dict[str, Any] = {}
        self.fetched: dict[Provider, bool] = {}
        self.waits_for: Provider | None = None
        self.hits = self.misses = 0
        self.clear_route = False
        self.unsendable = b""
        self.tokens: dict[bytes, Token | Status] = {}
        self.notes: list[str] | None = None
        self._before: tuple[list[Field], bytes] | None = None

    def keep(self) -> None:
        """The request is about to be changed: remember what it was, in case that this attempt has to wait."""
        if self._before is None:
            self._before = (self.request.fields.copy(), self.request.path)

    def undo(self) -> None:
        """As if nothing had been tried; what is known of tokens and fetches stays."""
        if self._before is not None:
            fields, self.request.path = self._before
            self.request.fields = fields
            self.request.index = index_of(fields)
            self._before = None
        self.extracted = {}
        self.hits = self.misses = 0
        self.clear_route = False
        self.unsendable = b""

    def read(self, text: bytes) -> Token | Status:
        """The token, read once."""
        token = self.tokens.get(text)
        if token is None:
            token = self.tokens[text] = read_token(text)
        return token

    def sanitize(self, names: Sequence[bytes]) -> None:
        """Nobody but the token that is looked at now says what stands in these headers."""
        if not self.request.index.keys().isdisjoint(names):
            self.keep()
            self.request.remove_all(names)


class Requirement(Protocol):
    """A node of a tree of requirements."""

    def decide(self, attempt: Attempt) -> Status:
        """Whether the request meets it; changes the request as tokens that are good say."""
        ...


class Tokens:
    """Judges all tokens in some places: by the provider given, or by the one that issued each."""

    __slots__ = ("_allowed", "_extraction", "_failed", "_missing", "_provider", "_providers")

    def __init__(
        self,
        extraction: Extraction,
        providers: Mapping[str, Provider],
        provider: Provider | None = None,
        audiences: Sequence[str] = (),
        *,
        allow_missing: bool = False,
        allow_failed: bool = False,
    ) -> None:
        self._extraction = extraction
        self._providers = providers
        self._provider = provider
        self._allowed = compile_audiences(audiences) if audiences else None
        self._missing = allow_missing
        self._failed = allow_failed

    def decide(self, attempt: Attempt) -> Status:
        attempt.sanitize(self._extraction.sanitized)
        found = self._extraction.find(attempt.request)
        if not found:
            self._note_failure(attempt, MISSING, None, None)
            return OK if self._missing or self._failed else MISSING
        outcome = OK
        for one in reversed(found):
            status, provider = self._judge(attempt, one)
            if status is PENDING:
                if attempt.notes is not None and provider is not None:
                    attempt.notes.append(f"provider {provider.config.name}: its keys have not been fetched")
                return PENDING
            if status is not OK:
                self._note_failure(attempt, status, provider, one)
                if not self._failed and not self._missing:
                    return status
                outcome = status
        return OK if self._failed else outcome

    def _judge(self, attempt: Attempt, found: Found) -> tuple[Status, Provider | None]:
        provider = self._provider
        verified = None
        if provider is not None:
            verified = provider.remembered(found.text)
            if verified is None:
                attempt.misses += 1
            else:
                attempt.hits += 1
        token = attempt.read(found.text) if verified is None else verified.token
        if isinstance(token, Status):
            return token, provider
        if found.location.issuers is not None and token.iss not in found.location.issuers:
            return UNKNOWN_ISSUER, provider
        if provider is None:
            provider = self._of_issuer(token.iss)
            if provider is None:
                return UNKNOWN_ISSUER, None
            verified = provider.remembered(found.text)
        status = provider.check_claims(token, attempt.now, self._allowed)
        if status is not OK:
            return status, provider
        if verified is None:
            if not provider.fresh and provider not in attempt.fetched:
                attempt.waits_for = provider
                return PENDING, provider
            if attempt.fetched.get(provider) is False:
                return FETCH_FAILED, provider
            judged = provider.verify(found.text, token)
            if isinstance(judged, Status):
                return judged, provider
            verified = judged
        if self._allowed is None:
            verified.for_provider = True
        config, request = provider.config, attempt.request
        if verified.fields or not config.forward:
            attempt.keep()
        attempt.unsendable = attempt.unsendable or verified.unsendable
        add_fields(request, verified.fields)
        if config.clear_route_cache and (
            verified.metadata or any(name != config.forward_payload_header for name, _ in verified.fields)
        ):
            attempt.clear_route = True
        if not config.forward:
            found.location.remove(request)
        attempt.extracted.update(verified.metadata)
        if attempt.notes is not None:
            attempt.notes.append(f"provider {config.name}: the token in {found.location!r} is good")
        return OK, provider

    def _of_issuer(self, issuer: str) -> Provider | None:
        any_issuer = None
        for provider in self._providers.values():
            if provider.config.issuer == issuer:
                return provider
            if not provider.config.issuer and any_issuer is None:
                any_issuer = provider
        return any_issuer

    def _note_failure(self, attempt: Attempt, status: Status, provider: Provider | None, found: Found | None) -> None:
        if provider is None and len(self._providers) == 1:
            provider = next(iter(self._providers.values()))
        if provider is not None and provider.config.failed_status_in_metadata:
            attempt.extracted[provider.config.failed_status_in_metadata] = {
                "code": status.code,
                "message": status.message,
            }
        if attempt.notes is not None:
            name = "any provider" if self._provider is None else f"provider {self._provider.config.name}"
            where = f"nothing in {', '.join(map(repr, self._extraction.locations))}"
            where = where if found is None else f"the token in {found.location!r}"
            attempt.notes.append(f"{name}: {where}: {status.message}")


class _Any:
    """One of them is enough. What is told of none being met is the most telling failure."""

    __slots__ = ("_failed", "_inner", "_missing")

    def __init__(self, inner: Sequence[Requirement], *, allow_missing: bool, allow_failed: bool) -> None:
        self._inner = inner
        self._missing = allow_missing
        self._failed = allow_failed

    def decide(self, attempt: Attempt) -> Status:
        outcome = MISSING
        for one in self._inner:
            status = one.decide(attempt)
            if status is OK or status is PENDING:
                return status
            if outcome is MISSING or status not in (MISSING, UNKNOWN_ISSUER):
                outcome = status
        return OK if self._failed or (self._missing and outcome is MISSING) else outcome


class _All:
    """The first that is not met decides."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Sequence[Requirement]) -> None:
        self._inner = inner

    def decide(self, attempt: Attempt) -> Status:
        for one in self._inner:
            status = one.decide(attempt)
            if status is not OK:
                return status
        return OK


class _Nothing:
    """Always met."""

    __slots__ = ()

    def decide(self, attempt: Attempt) -> Status:
        return OK


def compile_requirement(config: JwtRequirement, providers: Mapping[str, Provider]) -> Requirement:
    """A tree of requirements, ready to decide."""

    def everywhere() -> Extraction:
        return Extraction(provider.config for provider in providers.values())

    match config:
        case RequireProvider(name, audiences):
            provider = providers[name]
            return Tokens(Extraction((provider.config,)), providers, provider, audiences)
        case RequireAny(inner):
            failed, missing = AllowMissingOrFailed() in inner, AllowMissing() in inner
            others = [one for one in inner if not isinstance(one, AllowMissing | AllowMissingOrFailed)]
            if not others and inner:
                return compile_requirement(AllowMissingOrFailed() if failed else AllowMissing(), providers)
            compiled = [compile_requirement(one, providers) for one in others]
            return _Any(compiled, allow_missing=missing, allow_failed=failed)
        case RequireAll(inner):
            return _All([compile_requirement(one, providers) for one in inner])
        case AllowMissing():
            return Tokens(everywhere(), providers, allow_missing=True)
        case AllowMissingOrFailed():
            return Tokens(everywhere(), providers, allow_failed=True)
        case RequireNothing():
            return _Nothing()


def describe_requirement(config: JwtRequirement | None) -> str:
    """A requirement in words."""
    match config:
        case RequireProvider(name, audiences):
            return f"a token of {name}" + (f" for {' or '.join(audiences)}" if audiences else "")
        case RequireAny(inner):
            return f"({' or '.join(map(describe_requirement, inner))})"
        case RequireAll(inner):
            return f"({' and '.join(map(describe_requirement, inner))})"
        case AllowMissing():
            return "no token or a good one"
        case AllowMissingOrFailed():
            return "any token or none"
    return "nothing"
