"""One provider at work: the checks of a token that names it, the tokens that it has verified, what a good one leaves.

Source: Envoy's ``JwtProvider`` and ``JwtCacheConfig``; RFC 7519 section 4.1 for the claims.

A verified token is remembered, so that its signature is checked once; its times are looked at for every request, and all are
forgotten when the keys change or grow old.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final

import orjson

from sidecar.config.filters.jwt_authn import JwtProvider
from sidecar.core.head import Field, RequestHead
from sidecar.core.matching import compile_string
from sidecar.filters.jwt.key_source import KeySource
from sidecar.filters.jwt.status import (
    AUDIENCE_NOT_ALLOWED,
    EXPIRED,
    NO_VALID_KEYS,
    NOT_YET_VALID,
    OK,
    VERIFICATION_FAILS,
    Status,
)
from sidecar.filters.jwt.token import Token, find_claim

_DECIMALS: Final = 6
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in the value of a header


class Verified:
    """A token whose signature is good, and what it leaves. Times are seconds of the wall clock: valid from ``since`` and
    before ``until``. ``for_provider``: its audiences are among the provider's own. ``unsendable`` names a header that no
    request can carry as the token would have it, and is empty without one.
    """

    __slots__ = ("fields", "for_provider", "metadata", "since", "token", "unsendable", "until")

    def __init__(self, token: Token, since: float, until: float, metadata: dict[str, Any], fields: list[Field]) -> None:
        self.token = token
        self.since = since
        self.until = until
        self.metadata = metadata
        self.fields = fields
        self.for_provider = False
        self.unsendable = next((name for name, value in fields if _FORBIDDEN.search(value)), b"")

    def __repr__(self) -> str:
        return f"<Verified {self.token!r} until {self.until:.0f}>"


class VerifiedTokens:
    """Tokens by their text, at most ``size``. What was not asked for while half as many new ones came is forgotten."""

    __slots__ = ("_half", "_max_token", "old", "young")

    def __init__(self, size: int, max_token: int) -> None:
        self._half = max(1, size // 2)
        self._max_token = max_token
        self.young: dict[bytes, Verified] = {}
        self.old: dict[bytes, Verified] = {}

    def get(self, text: bytes) -> Verified | None:
        """The token, if it is remembered."""
        found = self.young.get(text)
        if found is None:
            found = self.old.pop(text, None)
            if found is not None:
                self.put(text, found)
        return found

    def put(self, text: bytes, verified: Verified) -> None:
        """Remember a token, unless it is too large."""
        if len(text) > self._max_token:
            return
        if len(self.young) >= self._half:
            self.old = self.young
            self.young = {}
        self.young[text] = verified

    def forget(self, text: bytes) -> None:
        """Forget one."""
        self.young.pop(text, None)
        self.old.pop(text, None)

    def clear(self) -> None:
        """Forget all."""
        self.young.clear()
        self.old.clear()

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def __repr__(self) -> str:
        return f"<VerifiedTokens {len(self)}>"


class Provider:
    """A provider with its keys. ``clock`` is the worker's, which the age of keys is told by."""

    __slots__ = ("_audiences", "_longest", "_subject", "clock", "config", "keys", "verified")

    def __init__(self, config: JwtProvider, keys: KeySource, clock: Callable[[], float]) -> None:
        self.config = config
        self.keys = keys
        self.clock = clock
        self._audiences = compile_audiences(config.audiences)
        self._subject = None if config.subjects is None else compile_string(config.subjects)
        self._longest = inf if config.max_lifetime is None and config.require_expiration else config.max_lifetime
        cache = config.jwt_cache_config
        self.verified = VerifiedTokens(cache.jwt_cache_size, cache.jwt_max_token_size)
        keys.on_change = self.verified.clear

    @property
    def fresh(self) -> bool:
        """Whether there are keys, and they are not too old."""
        return self.keys.keys is not None and (self.keys.expires == inf or self.clock() < self.keys.expires)

    def remembered(self, text: bytes) -> Verified | None:
        """The token, if it has been verified by the keys that count now."""
        return self.verified.get(text) if self.fresh else None

    def check_claims(self, token: Token, now: float, allowed: Callable[[Sequence[str]], bool] | None) -> Status:
        """Everything but issuer and signature. ``allowed`` stands in the stead of the provider's own audiences."""
        seconds, skew = int(now), self.config.clock_skew_seconds
        if seconds + skew < token.nbf:
            return NOT_YET_VALID
        if token.exp and seconds > token.exp + skew:
            return EXPIRED
        if not (allowed or self._audiences)(token.audiences):
            return AUDIENCE_NOT_ALLOWED
        if self._subject is not None and not self._subject(token.sub.encode()):
            return VERIFICATION_FAILS
        if self._longest is not None and not (token.exp and token.exp - now < self._longest):
            return VERIFICATION_FAILS
        return OK

    def verify(self, text: bytes, token: Token) -> Verified | Status:
        """Check the signature with the keys that there are, and remember the token if it is good."""
        keys = self.keys.keys
        status = NO_VALID_KEYS if keys is None else keys.verify(token)
        if status is not OK:
            return status
        skew = self.config.clock_skew_seconds
        since = float(token.nbf - skew)
        if self._longest is not None and self._longest != inf:
            since = max(since, token.exp - self._longest)
        verified = Verified(
            token,
            since,
            token.exp + skew + 1 if token.exp else inf,
            self._metadata(token),
            self._fields(token),
        )
        if not verified.unsendable:
            self.verified.put(text, verified)
        return verified

    def _fields(self, token: Token) -> list[Field]:
        config = self.config
        fields = []
        if config.forward_payload_header:
            payload = token.payload_base64
            padding = b"=" * (-len(payload) % 4) if config.pad_forward_payload_header else b""
            fields.append((config.forward_payload_header, payload + padding))
        for header, claim in config.claim_to_headers:
            value = claim_text(find_claim(token.payload, claim))
            if value:
                fields.append((header, value))
        return fields

    def _metadata(self, token: Token) -> dict[str, Any]:
        config = self.config
        metadata: dict[str, Any] = {}
        if config.header_in_metadata:
            metadata[config.header_in_metadata] = token.header
        if config.payload_in_metadata:
            payload = token.payload
            for claim in config.space_delimited_claims:
                words = value.split(" ") if isinstance(value := payload.get(claim), str) else ()
                if any(words):
                    payload = {**payload, claim: [word for word in words if word]}
            metadata[config.payload_in_metadata] = payload
        return metadata

    def __repr__(self) -> str:
        return f"<Provider {self.config.name!r}, {self.keys!r}>"


def add_fields(request: RequestHead, fields: Iterable[Field]) -> None:
    """Tell the upstream what a token says."""
    for name, value in fields:
        request.add(name, value)


def compile_audiences(audiences: Iterable[str]) -> Callable[[Sequence[str]], bool]:
    """Whether one of a token's audiences is among these, their scheme and a slash at the end aside; any if there are none."""
    wanted = frozenset(map(_bare, audiences))
    if not wanted:
        return lambda found: True
    return lambda found: not wanted.isdisjoint(map(_bare, found))


def _bare(audience: str) -> str:
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience[len(scheme) :]
            break
    return audience.removesuffix("/")


def claim_text(value: Any) -> bytes:
    """A claim as the value of a header: objects and lists as base64 of their JSON; empty for what has no text."""
    match value:
        case bool():
            return b"true" if value else b"false"
        case str():
            return value.encode()
        case int() | float():
            return b"%d" % value if isinstance(value, int) and 0 <= value < 1 << 64 else _decimal(value)
        case dict() | list():
            return base64.b64encode(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    return b""


def _decimal(value: float) -> bytes:
    return f"{value:.{_DECIMALS}f}".encode()
