"""The usual case, cut short: a token that has been verified before, alone in the one header where it belongs.

Whatever is not exactly that is left to ``requirements``, which decides the same in all cases; nothing is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sidecar.config.filters.jwt_authn import (
    AllowMissing,
    AllowMissingOrFailed,
    JwtRequirement,
    RemoteJwks,
    RequireAny,
    RequireProvider,
)
from sidecar.core.http_filter import FilterStream
from sidecar.filters.jwt.extraction import Extraction, HeaderLocation, ParamLocation
from sidecar.filters.jwt.provider import Provider

METADATA: Final = "envoy.filters.http.jwt_authn"
"""The namespace of what tokens leave in the dynamic metadata."""

Quick = Callable[[FilterStream], bool]
"""Whether the request has been let pass, with all that its token leaves."""


class CacheStats(Protocol):
    """What is counted here."""

    allowed: int
    jwt_cache_hit: int


def compile_quick(
    config: JwtRequirement,
    providers: Mapping[str, Provider],
    sanitized: frozenset[bytes],
    stats: CacheStats,
    wall_clock: Callable[[], float],
) -> Quick | None:
    """The short way for a requirement, None where it has none: it must be one provider's, alone or beside none at all.

    ``sanitized`` are the headers that no client may set.
    """
    inner = config.requirements if isinstance(config, RequireAny) else (config,)
    asked = [one for one in inner if not isinstance(one, AllowMissing | AllowMissingOrFailed)]
    if len(asked) != 1 or not isinstance(asked[0], RequireProvider) or asked[0].audiences:
        return None
    provider = providers[asked[0].provider]
    settings = provider.config
    extraction = Extraction((settings,))
    headers = [one for one in extraction.locations if isinstance(one, HeaderLocation)]
    params = tuple(one.name for one in extraction.locations if isinstance(one, ParamLocation))
    if len(headers) != 1 or len(headers) + len(params) != len(extraction.locations) or settings.clear_route_cache:
        return None
    header, prefix = headers[0].name, headers[0].prefix
    size = len(prefix)
    verified = provider.verified
    expires = isinstance(settings.jwks, RemoteJwks)
    audiences = bool(settings.audiences)
    strip = not settings.forward

    def quick(stream: FilterStream) -> bool:
        request = stream.request
        index = request.index
        value = index.get(header)
        if value is None:
            return False
        entry = verified.young.get(value[size:])
        if entry is None or not entry.since <= wall_clock() < entry.until or not value.startswith(prefix):
            return False
        if (audiences and not entry.for_provider) or (expires and not provider.fresh):
            return False
        path = request.path
        if b"?" in path and params and (b"%" in path or any(name in path for name in params)):
            return False
        if path[:1] != b"/" or (sanitized and not sanitized.isdisjoint(index)):
            return False
        for name, text in entry.fields:
            request.add(name, text)
        if strip:
            request.remove(header)
        if entry.metadata:
            if stream.dynamic_metadata is None:
                stream.dynamic_metadata = {METADATA: entry.metadata}
            else:
                leave_metadata(stream, entry.metadata)
        stats.jwt_cache_hit += 1
        stats.allowed += 1
        return True

    return quick


def leave_metadata(stream: FilterStream, extracted: dict[str, object]) -> None:
    """Put what tokens say where later filters and logs find it. ``extracted`` may be shared between streams."""
    metadata = stream.dynamic_metadata
    if metadata is None:
        stream.dynamic_metadata = {METADATA: extracted}
    else:
        known = metadata.get(METADATA)
        metadata[METADATA] = extracted if known is None else {**known, **extracted}
