"""What an authorization service is told of a request or of a connection: ``service.auth.v3.CheckRequest``.

Source: Envoy's ``service.auth.v3.AttributeContext`` and its ext_authz filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead
from sidecar.core.sanitized_text import text_of
from sidecar.core.stream_info import ConnectionInfo

PARTIAL_BODY: Final = b"x-envoy-auth-partial-body"
"""Tells the service whether the body that it gets is cut; what a client says there does not count."""

_PROTOCOLS: Final = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}

Wanted = Callable[[bytes], bool]
"""Whether the header of this name is shown to the service."""


class Body(NamedTuple):
    """The request's body as far as the service gets it, and whether that is not all of it."""

    data: bytes
    partial: bool


class Told(NamedTuple):
    """What is told of every request and connection. ``labels`` are of the sidecar itself."""

    peer_certificate: bool = False
    tls_session: bool = False
    labels: Mapping[str, str] = {}


class ToldOfRequests(NamedTuple):
    """What is told of requests besides. ``wanted`` says which headers (None: all); namespaces are those of metadata."""

    wanted: Wanted | None = None
    raw_headers: bool = False
    raw_body: bool = False
    namespaces: tuple[str, ...] = ()
    route_namespaces: tuple[str, ...] = ()


def headers_shown(request: RequestHead, wanted: Wanted | None, *, joined: bool = True) -> list[Field]:
    """The headers of a request that the service sees, pseudo-headers first; ``joined``: one for each name."""
    pseudo = (
        (b":authority", request.authority),
        (b":path", request.path),
        (b":method", request.method),
        (b":scheme", request.scheme),
    )
    shown = [field for field in pseudo if field[1]]
    shown += [field for field in (request.index.items() if joined else request.fields) if field[0] != PARTIAL_BODY]
    return shown if wanted is None else [field for field in shown if wanted(field[0])]


def check_of_request(
    stream: Any, body: Body | None, told: Told, of_requests: ToldOfRequests, extensions: Mapping[str, str]
) -> bytes:
    """The message for a request; ``extensions`` are the context extensions of its route."""
    message = CheckRequest()
    attributes = message.attributes
    connection: ConnectionInfo = stream.connection
    request: RequestHead = stream.request
    _tell_connection(attributes, connection, told)
    service = request.get(b"x-envoy-downstream-service-cluster")
    if service:
        attributes.source.service = text_of(service)
    _tell_request(attributes.request, stream, body, of_requests)
    _tell_session(attributes, connection, told)
    if extensions:
        attributes.context_extensions.update(extensions)
    attributes.metadata_context.SetInParent()
    attributes.route_metadata_context.SetInParent()
    tell_metadata(attributes.metadata_context, (stream.dynamic_metadata, connection.metadata), of_requests.namespaces)
    if of_requests.route_namespaces and stream.route is not None:
        tell_metadata(attributes.route_metadata_context, (stream.route.metadata,), of_requests.route_namespaces)
    return bytes(message.SerializeToString())


def check_of_connection(connection: ConnectionInfo, told: Told, namespaces: tuple[str, ...]) -> bytes:
    """The message for a connection."""
    message = CheckRequest()
    attributes = message.attributes
    _tell_connection(attributes, connection, told)
    if connection.requested_server_name:
        attributes.destination.service = connection.requested_server_name
    _tell_session(attributes, connection, told)
    attributes.metadata_context.SetInParent()
    tell_metadata(attributes.metadata_context, (connection.metadata,), namespaces)
    return bytes(message.SerializeToString())


def tell_metadata(message: Any, sources: Iterable[Mapping[str, Any] | None], namespaces: Iterable[str]) -> None:
    """Fill a ``core.v3.Metadata`` with the namespaces, each from the first source that has it."""
    for namespace in namespaces:
        for source in sources:
            if source and namespace in source:
                message.filter_metadata[namespace].update(source[namespace])
                break


def _tell_connection(attributes: Any, connection: ConnectionInfo, told: Told) -> None:
    _tell_address(attributes.source.address, connection.remote_address)
    _tell_address(attributes.destination.address, connection.local_address)
    tls = connection.tls
    if tls is not None:
        attributes.source.principal = principal_of(tls.peer)
        attributes.destination.principal = principal_of(tls.local)
        if told.peer_certificate and tls.peer is not None:
            attributes.source.certificate = tls.peer.url_encoded_pem
    if told.labels:
        attributes.destination.labels.update(told.labels)


def _tell_session(attributes: Any, connection: ConnectionInfo, told: Told) -> None:
    if told.tls_session:
        attributes.tls_session.SetInParent()
        if connection.tls is not None:
            attributes.tls_session.sni = connection.tls.server_name


def labels_of(node_metadata: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """The labels that stand in a node's metadata under ``key``; what is no text is empty, as in Envoy."""
    labels = node_metadata.get(key) if key else None
    if not isinstance(labels, Mapping):
        return {}
    return {name: value if isinstance(value, str) else "" for name, value in labels.items()}


def principal_of(certificate: Any) -> str:
    """Whom a certificate names: its first URI, else its first DNS name, else its subject; empty without one."""
    if certificate is None:
        return ""
    names = certificate.uri_sans or certificate.dns_sans or (certificate.subject,)
    return text_of(names[0])


def _tell_address(message: Any, address: Address) -> None:
    if address.ip is None:
        message.pipe.path = address.path
    else:
        message.socket_address.address = address.ip
        message.socket_address.port_value = address.port


def _tell_request(message: Any, stream: Any, body: Body | None, told: ToldOfRequests) -> None:
    request: RequestHead = stream.request
    nanoseconds = int(stream.start_time * 1e9)
    message.time.seconds, message.time.nanos = divmod(nanoseconds, 1_000_000_000)
    http = message.http
    http.id = str(stream.random.getrandbits(64))
    http.method = text_of(request.method)
    http.path = text_of(request.path)
    http.host = text_of(request.authority)
    http.scheme = text_of(request.scheme)
    http.protocol = _PROTOCOLS.get(request.version, "HTTP/1.1")
    http.size = stream.bytes_received
    shown = headers_shown(request, told.wanted, joined=not told.raw_headers)
    if body is not None:
        shown.append((PARTIAL_BODY, b"true" if body.partial else b"false"))
        if told.raw_body:
            http.raw_body = body.data
        else:
            http.body = text_of(body.data)
    if told.raw_headers:
        add = http.header_map.headers.add
        for name, value in shown:
            add(key=text_of(name), raw_value=value)
    else:
        headers = http.headers
        for name, value in shown:
            headers[text_of(name)] = text_of(value)
