"""Where requests carry tokens: headers, query parameters, cookies; and how a token is taken out of a request.

Source: Envoy's ``JwtProvider`` (from_headers, from_params, from_cookies) and RFC 6750, whose places are the default ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from sidecar.config.filters.jwt_authn import JwtHeader, JwtProvider
from sidecar.core.head import RequestHead

DEFAULT_HEADER: Final = JwtHeader(b"authorization", b"Bearer ")
DEFAULT_PARAM: Final = b"access_token"

_BEGINS: Final = re.compile(rb"[A-Za-z0-9_.-]")


class Location(Protocol):
    """One place. ``issuers`` are those whose tokens may stand there, None for any."""

    issuers: frozenset[str] | None

    def find(self, request: RequestHead) -> Sequence[bytes]:
        """The tokens that stand there."""
        ...

    def remove(self, request: RequestHead) -> None:
        """Take the place out of the request."""
        ...


class Found(NamedTuple):
    """A token, and the place that it stands in."""

    text: bytes
    location: Location


class HeaderLocation:
    """A header; the token stands behind ``prefix``, wherever that is in the value."""

    __slots__ = ("issuers", "name", "prefix")

    def __init__(self, header: JwtHeader, issuers: frozenset[str] | None) -> None:
        self.name = header.name
        self.prefix = header.value_prefix
        self.issuers = issuers

    def find(self, request: RequestHead) -> Sequence[bytes]:
        if self.name not in request.index:
            return ()
        one = self.name == DEFAULT_HEADER.name  # several are one value, as for all who read it
        values = [request.index[self.name]] if one else request.get_all(self.name)
        if not self.prefix:
            return values
        return [self._behind_prefix(value) for value in values if self.prefix in value]

    def _behind_prefix(self, value: bytes) -> bytes:
        found = _BEGINS.search(value, value.index(self.prefix) + len(self.prefix))
        return value if found is None else value[found.start() :]

    def remove(self, request: RequestHead) -> None:
        request.remove(self.name)

    def __repr__(self) -> str:
        return f"header {self.name.decode('latin-1')}"


class ParamLocation:
    """A query parameter, its value percent-decoded."""

    __slots__ = ("issuers", "name")

    def __init__(self, name: bytes, issuers: frozenset[str] | None) -> None:
        self.name = name
        self.issuers = issuers

    def find(self, request: RequestHead) -> Sequence[bytes]:
        _, mark, query = request.path.partition(b"?")
        if mark:
            for pair in query.partition(b"#")[0].split(b"&"):
                name, _, value = pair.partition(b"=")
                if unquote_to_bytes(name) == self.name:
                    return (unquote_to_bytes(value),)
        return ()

    def remove(self, request: RequestHead) -> None:
        path, _, rest = request.path.partition(b"?")
        query, hash_mark, fragment = rest.partition(b"#")
        kept = [pair for pair in query.split(b"&") if unquote_to_bytes(pair.partition(b"=")[0]) != self.name]
        request.path = path + (b"?" + b"&".join(kept) if kept else b"") + hash_mark + fragment

    def __repr__(self) -> str:
        return f"query parameter {self.name.decode('latin-1')}"


class CookieLocation:
    """A cookie, the first of its name. It stays where it is: cookies are the application's."""

    __slots__ = ("issuers", "name")

    def __init__(self, name: bytes, issuers: frozenset[str] | None) -> None:
        self.name = name
        self.issuers = issuers

    def find(self, request: RequestHead) -> Sequence[bytes]:
        if b"cookie" in request.index:
            for header in request.get_all(b"cookie"):
                for cookie in header.split(b";"):
                    name, equals, value = cookie.partition(b"=")
                    if equals and name.lstrip(b" ") == self.name:
                        return (value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value,)
        return ()

    def remove(self, request: RequestHead) -> None:
        """Nothing is taken away."""

    def __repr__(self) -> str:
        return f"cookie {self.name.decode('latin-1')}"


class Extraction:
    """Where the tokens of some providers stand, and which headers these providers set, so that nobody else may."""

    __slots__ = ("locations", "sanitized")

    def __init__(self, providers: Iterable[JwtProvider]) -> None:
        headers: dict[bytes, tuple[JwtHeader, set[str]]] = {}
        params: dict[bytes, set[str]] = {}
        cookies: dict[bytes, set[str]] = {}
        sanitized: dict[bytes, None] = {}
        for one in providers:
            default = not (one.from_headers or one.from_params or one.from_cookies)
            for header in (DEFAULT_HEADER,) if default else one.from_headers:
                headers.setdefault(header.name + header.value_prefix, (header, set()))[1].add(one.issuer)
            for param in (DEFAULT_PARAM,) if default else one.from_params:
                params.setdefault(param, set()).add(one.issuer)
            for cookie in one.from_cookies:
                cookies.setdefault(cookie, set()).add(one.issuer)
            for name in (one.forward_payload_header, *(header for header, _ in one.claim_to_headers)):
                if name:
                    sanitized[name] = None
        self.locations: tuple[Location, ...] = (
            *(HeaderLocation(header, _allowed(issuers)) for _, (header, issuers) in sorted(headers.items())),
            *(ParamLocation(name, _allowed(issuers)) for name, issuers in sorted(params.items())),
            *(CookieLocation(name, _allowed(issuers)) for name, issuers in sorted(cookies.items())),
        )
        self.sanitized = tuple(sanitized)

    def find(self, request: RequestHead) -> list[Found]:
        """The tokens of a request."""
        return [Found(text, location) for location in self.locations for text in location.find(request)]

    def __repr__(self) -> str:
        return f"<Extraction from {', '.join(map(repr, self.locations))}>"


def _allowed(issuers: set[str]) -> frozenset[str] | None:
    return None if "" in issuers else frozenset(issuers)
