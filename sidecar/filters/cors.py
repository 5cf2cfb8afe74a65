"""The CORS filter: answers preflight requests, and marks responses to requests from origins that are allowed.

Source: Envoy's ``extensions.filters.http.cors.v3`` and the Fetch standard's CORS protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sidecar.config.filters.cors import CorsPolicy
from sidecar.core.head import Field
from sidecar.core.http_filter import FilterStream
from sidecar.core.matching import compile_strings
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.fraction import compile_fraction

DETAILS = "cors_response"

_ALLOW_METHODS, _ALLOW_HEADERS = b"access-control-allow-methods", b"access-control-allow-headers"
_ASKED = {_ALLOW_METHODS: b"access-control-request-method", _ALLOW_HEADERS: b"access-control-request-headers"}
"""What the answer repeats of the request where the policy says ``*``."""


class CorsStats(Protocol):
    """What the filter counts."""

    origin_invalid: int
    origin_valid: int


def merge_policies(policies: Sequence[CorsPolicy]) -> CorsPolicy:
    """One policy from those of all levels, the most specific last: each field from the most specific that sets it.

    Whether it is enforced is for the most specific level alone to say.
    """

    def first(field: str) -> Any:
        values = (getattr(policy, field) for policy in reversed(policies))
        return next((value for value in values if value not in (None, b"", ())), getattr(policies[-1], field))

    return CorsPolicy(
        allow_origin_string_match=first("allow_origin_string_match"),
        allow_methods=first("allow_methods"),
        allow_headers=first("allow_headers"),
        expose_headers=first("expose_headers"),
        max_age=first("max_age"),
        allow_credentials=first("allow_credentials"),
        filter_enabled=policies[-1].filter_enabled,
        shadow_enabled=policies[-1].shadow_enabled,
        allow_private_network_access=first("allow_private_network_access"),
        forward_not_matching_preflights=first("forward_not_matching_preflights"),
    )


class CorsFilter(NamedFilter):
    """One policy; only routes have one, so the chain's own instance is a filter that does nothing."""

    __slots__ = ("_actual", "_allowed", "_credentials", "_enabled", "_expose", "_forward", "_preflight", "_private",
                 "_shadow", "stats")  # fmt: skip

    def __init__(self, name: str, policy: CorsPolicy, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self.stats: CorsStats = context.stats("cors")
        self._allowed = compile_strings(policy.allow_origin_string_match)
        self._enabled = compile_fraction(policy.filter_enabled)
        self._shadow = compile_fraction(policy.shadow_enabled)
        self._forward = policy.forward_not_matching_preflights is not False
        self._private = bool(policy.allow_private_network_access)
        credentials = [(b"access-control-allow-credentials", b"true")] if policy.allow_credentials else []
        given = (
            (_ALLOW_METHODS, policy.allow_methods),
            (_ALLOW_HEADERS, policy.allow_headers),
            (b"access-control-max-age", policy.max_age),
        )
        expose = [(b"access-control-expose-headers", policy.expose_headers)] if policy.expose_headers else []
        self._preflight: tuple[Field, ...] = (*credentials, *(field for field in given if field[1]))
        self._actual: tuple[Field, ...] = (*credentials, *expose)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Judge the origin, and answer a preflight request."""
        request = stream.request
        origin = request.get(b"origin")
        if not origin:
            return None
        enabled = self._enabled(stream.random)
        if not enabled and not self._shadow(stream.random):
            return None
        allowed = self._allowed(origin)
        if allowed:
            self.stats.origin_valid += 1
        else:
            self.stats.origin_invalid += 1
        if not enabled:
            return None
        if allowed:
            stream.data[self] = origin
        if request.method != b"OPTIONS" or not request.get(b"access-control-request-method"):
            return None
        if not allowed and self._forward:
            return None
        fields = [
            (name, request.get(_ASKED[name]) or b"") if value == b"*" and name in _ASKED else (name, value)
            for name, value in self._preflight
        ]
        if allowed:
            fields.insert(0, (b"access-control-allow-origin", origin))
        if self._private and request.get(b"access-control-request-private-network") == b"true":
            fields.append((b"access-control-allow-private-network", b"true"))
        return stream.reply(200, details=DETAILS, headers=fields)

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Tell the browser of an allowed origin what it may do with the response."""
        origin: bytes | None = stream.data.get(self)
        response = stream.response
        if origin is not None and response is not None:
            response.set(b"access-control-allow-origin", origin)
            for name, value in self._actual:
                response.set(name, value)
        return None
