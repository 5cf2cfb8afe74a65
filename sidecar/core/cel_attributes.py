"""What the names in an expression mean where access is decided: Envoy's attributes.

Each is a function of an ``RbacSubject`` that returns a value of CEL or raises ``CelError`` where there is none. Source:
Envoy's reference of attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.cel import Timestamp, Uint
from sidecar.core.cel_values import CelError, CelMap, StructMap

Read = Callable[[Any], Any]

_EMPTY = CelMap()
_PROTOCOLS = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}


class HeaderMap:
    """The headers of a request as a map; the values of one that is repeated are joined by commas."""

    __slots__ = ("_head",)

    def __init__(self, head: Any) -> None:
        self._head = head

    def find(self, key: Any) -> Any:
        """The value of a header, in any case. Raises CelError without one."""
        value = self._head.lookup(key.lower().encode()) if isinstance(key, str) else None
        if value is None:
            raise CelError(f"no such header: {key!r}")
        return _text(value)

    def has(self, key: Any) -> bool:
        """Whether there is such a header."""
        return isinstance(key, str) and self._head.lookup(key.lower().encode()) is not None

    def keys(self) -> list[Any]:
        """The names, each once."""
        return [":authority", ":path", ":method", ":scheme", *map(_text, self._head.index)]

    def __len__(self) -> int:
        return 4 + len(self._head.fields)


class FilterStateMap:
    """What filters left, as bytes."""

    __slots__ = ("_state",)

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self._state = state or {}

    def find(self, key: Any) -> Any:
        """What stands under a key. Raises CelError where there is nothing, or nothing that can be bytes."""
        value = self._state.get(key) if isinstance(key, str) else None
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, bytes):
            return value
        raise CelError(f"no such filter state: {key!r}")

    def has(self, key: Any) -> bool:
        """Whether there is such a value."""
        return isinstance(self._state.get(key) if isinstance(key, str) else None, str | bytes)

    def keys(self) -> list[Any]:
        """The names of what can be bytes."""
        return [key for key in self._state if self.has(key)]

    def __len__(self) -> int:
        return len(self.keys())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _absent(what: str) -> CelError:
    return CelError(f"{what} has no value here")


def _of_request(name: str, get: Callable[[Any], bytes | None]) -> Read:
    def read(subject: Any) -> str:
        request = subject.request
        value = None if request is None else get(request)
        if value is None:
            raise _absent(f"request.{name}")
        return value.decode("utf-8", "replace")

    return read


def _url_path(subject: Any) -> str:
    return "" if subject.request is None else _text(subject.request.path.partition(b"?")[0])


def _query(subject: Any) -> str:
    return "" if subject.request is None else _text(subject.request.path.partition(b"?")[2].partition(b"#")[0])


def _headers(subject: Any) -> Any:
    return _EMPTY if subject.request is None else HeaderMap(subject.request)


def _size(subject: Any) -> int:
    length = None if subject.request is None else subject.request.index.get(b"content-length")
    if length is None:
        return int(subject.bytes_received)
    if not length.isdigit() or len(length) > 18:
        raise _absent("request.size")
    return int(length)


def _protocol(subject: Any) -> str:
    if subject.request is None:
        raise _absent("request.protocol")
    return _PROTOCOLS[subject.request.version]


def _time(subject: Any) -> Timestamp:
    return Timestamp(int(subject.start_time * 1_000_000) * 1000)


def _mtls(subject: Any) -> bool:
    tls = subject.connection.tls
    return tls is not None and bool(tls.presented)


def _termination_details(subject: Any) -> str:
    details: str = subject.connection.termination_details
    if not details:
        raise _absent("connection.termination_details")
    return details


def _of_tls(name: str, get: Callable[[Any], Any]) -> Read:
    def read(subject: Any) -> Any:
        tls = subject.connection.tls
        value = None if tls is None else get(tls)
        if value is None:
            raise _absent(f"connection.{name}")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    return read


def _first(names: Any) -> Any:
    return names[0] if names else None


def _address_of(get: Callable[[Any], Any]) -> tuple[Read, Read]:
    def port(subject: Any) -> int:
        address = get(subject)
        if address.ip is None:
            raise _absent("the port of a Unix socket")
        return int(address.port)

    return (lambda subject: get(subject).text), port


def _of_route(name: str, get: Callable[[Any], Any]) -> Read:
    def read(subject: Any) -> Any:
        if subject.route is None:
            raise _absent(f"xds.{name}")
        return get(subject.route)

    return read


_source, _source_port = _address_of(lambda subject: subject.remote_address)
_destination, _destination_port = _address_of(lambda subject: subject.connection.local_address)

ATTRIBUTES: dict[str, dict[str, Read]] = {
    "request": {
        "path": _of_request("path", lambda head: head.path or None),
        "url_path": _url_path,
        "query": _query,
        "host": _of_request("host", lambda head: head.authority or None),
        "scheme": _of_request("scheme", lambda head: head.scheme or None),
        "method": _of_request("method", lambda head: head.method),
        "headers": _headers,
        "referer": _of_request("referer", lambda head: head.index.get(b"referer")),
        "useragent": _of_request("useragent", lambda head: head.index.get(b"user-agent")),
        "id": _of_request("id", lambda head: head.index.get(b"x-request-id")),
        "protocol": _protocol,
        "time": _time,
        "size": _size,
    },
    "connection": {
        "mtls": _mtls,
        "id": lambda subject: Uint(subject.connection.id),
        "requested_server_name": lambda subject: subject.connection.requested_server_name,
        "termination_details": _termination_details,
        "tls_version": _of_tls("tls_version", lambda tls: tls.version),
        "subject_local_certificate": _of_tls(
            "subject_local_certificate", lambda tls: b"" if tls.local is None else tls.local.subject
        ),
        "subject_peer_certificate": _of_tls("subject_peer_certificate", lambda tls: tls.subject),
        "dns_san_local_certificate": _of_tls(
            "dns_san_local_certificate", lambda tls: None if tls.local is None else _first(tls.local.dns_sans)
        ),
        "dns_san_peer_certificate": _of_tls("dns_san_peer_certificate", lambda tls: _first(tls.dns_sans)),
        "uri_san_local_certificate": _of_tls(
            "uri_san_local_certificate", lambda tls: None if tls.local is None else _first(tls.local.uri_sans)
        ),
        "uri_san_peer_certificate": _of_tls("uri_san_peer_certificate", lambda tls: _first(tls.uri_sans)),
        "sha256_peer_certificate_digest": _of_tls(
            "sha256_peer_certificate_digest", lambda tls: None if tls.peer is None else tls.peer.sha256
        ),
        "peer_certificate": _of_tls(
            "peer_certificate", lambda tls: None if tls.peer is None else tls.peer.url_encoded_pem
        ),
    },
    "source": {"address": _source, "port": _source_port},
    "destination": {"address": _destination, "port": _destination_port},
    "metadata": {"filter_metadata": lambda subject: StructMap(subject.dynamic_metadata or {})},
    "xds": {
        "route_name": _of_route("route_name", lambda route: route.name),
        "route_metadata": _of_route(
            "route_metadata", lambda route: CelMap([("filter_metadata", StructMap(route.metadata or {}))])
        ),
        "virtual_host_name": _of_route("virtual_host_name", lambda route: route.virtual_host_name),
        "filter_chain_name": lambda subject: subject.connection.filter_chain_name,
    },
}
"""The attributes by their first name and their second."""


def _filter_state(key: str) -> Read:
    return lambda subject: FilterStateMap(subject.filter_state).find(key)


class Attributes:
    """What names mean. ``roots`` are the first names."""

    def __init__(self) -> None:
        self.roots = frozenset((*ATTRIBUTES, "filter_state"))

    def find(self, root: str, field: str) -> Read | None:
        """What reads an attribute, or None if there is none of these names."""
        return _filter_state(field) if root == "filter_state" else ATTRIBUTES[root].get(field)

    def unknown(self, root: str, field: str) -> str:
        """What to say of an attribute that there is not."""
        return f"{root}.{field} has no value where access is decided; {root} has {', '.join(ATTRIBUTES[root])}"

    def misused(self, name: str) -> str:
        """What to say of a name that stands alone."""
        if name in self.roots:
            return f"{name} is used as a whole; name one of its attributes, as in {name}.{self._example(name)}"
        return f"{name!r} is no attribute; known are {', '.join(sorted(self.roots))}"

    def _example(self, root: str) -> str:
        return next(iter(ATTRIBUTES.get(root, ("key",))))


REQUEST_ATTRIBUTES = Attributes()
