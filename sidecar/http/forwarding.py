"""What the connection manager does to request heads before the filters see them, and to response heads at the end.

Hop-by-hop fields go, internal fields of strangers go, the X-Forwarded family, Via, User-Agent and the request id are
set by the configuration. Source: Envoy's "HTTP header manipulation" and "HTTP header sanitizing".
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from ipaddress import ip_address
from struct import Struct
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final

from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead
from sidecar.http.client_certificate import compile_forwarded_client_certificate
from sidecar.http.path_normalization import compile_path_normalization

if TYPE_CHECKING:
    from sidecar.http.stream import Stream

_HOP_BY_HOP: Final = frozenset((b"keep-alive", b"proxy-connection", b"transfer-encoding", b"x-envoy-internal"))
_INTERNAL: Final = (
    b"x-envoy-retriable-status-codes", b"x-envoy-retriable-header-names", b"x-envoy-retry-on",
    b"x-envoy-retry-grpc-on", b"x-envoy-max-retries", b"x-envoy-upstream-alt-stat-name",
    b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-upstream-rq-per-try-timeout-ms",
    b"x-envoy-upstream-rq-timeout-alt-response", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-force-trace",
    b"x-envoy-ip-tags", b"x-envoy-original-url", b"x-envoy-hedge-on-per-try-timeout",
)  # fmt: skip
_EDGE: Final = (
    b"x-envoy-decorator-operation",
    b"x-envoy-downstream-service-cluster",
    b"x-envoy-downstream-service-node",
    b"x-envoy-original-path",
)
_SPECIAL: Final = frozenset(
    (b"connection", b"upgrade", b"te", b"expect", b"x-forwarded-for", b"x-forwarded-client-cert", b"http2-settings")
).union(_HOP_BY_HOP, _INTERNAL, _EDGE)
_RESPONSE_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"upgrade", b"keep-alive", b"proxy-connection", b"transfer-encoding")
)
_HTTP: Final = (b"x-forwarded-proto", b"http")
_HTTPS: Final = (b"x-forwarded-proto", b"https")
_SCHEMES: Final = frozenset((b"http", b"https"))

Prepare = Callable[["Stream"], bool]
"""Prepares ``stream.request``; True if it answered the request itself."""


class InternalHeaders:
    """The fields that requests from outside lose: those that are always internal, and a route configuration's own."""

    __slots__ = ("names", "special")

    def __init__(self, own: tuple[bytes, ...] = ()) -> None:
        self.names = list(_INTERNAL + own)
        self.special = set(_SPECIAL.union(own))  # fields of which one makes a request unusual

    def take(self, own: tuple[bytes, ...]) -> bool:
        """These are the route configuration's from now on; whether they have changed."""
        names = list(_INTERNAL + own)
        if names == self.names:
            return False
        self.names[:] = names
        self.special.clear()
        self.special.update(_SPECIAL, own)
        return True

    def __repr__(self) -> str:
        return f"<InternalHeaders {self.names}>"


def compile_forwarding(
    config: HttpConnectionManager,
    local_ip: str,
    node_id: bytes,
    node_cluster: bytes,
    of_routes: InternalHeaders | None = None,
) -> Prepare:
    """The preparation of requests under ``config``.

    ``local_ip`` is what stands in X-Forwarded-For for a peer on the loopback interface; ``of_routes`` may change later.
    """
    use_remote_address = config.use_remote_address
    hops = config.xff_num_trusted_hops
    at_edge = use_remote_address and not hops
    append_xff = not config.skip_xff_append
    new_scheme = config.scheme_to_overwrite
    append_port = config.append_x_forwarded_port
    via = config.via
    networks = config.internal_address_config.cidr_ranges
    unix_is_internal = config.internal_address_config.unix_sockets
    add_user_agent = config.add_user_agent
    keep_external_id = config.preserve_external_request_id
    generate_id = config.generate_request_id
    forward_certificate = compile_forwarded_client_certificate(
        config.forward_client_cert_details, config.set_current_client_cert_details
    )
    of_routes = of_routes or InternalHeaders()
    internal_headers, special = of_routes.names, of_routes.special
    normalize = compile_path_normalization(config)
    forward_expect = config.proxy_100_continue
    strip_host = compile_host_stripping(config)
    default_host = config.http_protocol_options.default_host_for_http_10
    plain = not (via or add_user_agent or append_port or new_scheme)

    def is_internal(address: Address) -> bool:
        if address.ip is None:
            return unix_is_internal
        parsed = address.parsed
        return any(parsed in network for network in networks if parsed is not None)

    def addresses(stream: Stream, request: RequestHead) -> bool:
        """X-Forwarded-For and -Proto and the client's address; whether the request is internal."""
        xff = request.index.get(b"x-forwarded-for")
        peer = stream.connection.remote_address
        if xff is None and use_remote_address:
            known: tuple[Field | None, Field | None, bool] | None = stream.connection.forwarding
            if known is None:
                known = stream.connection.forwarding = of_peer(peer)
            field, external, internal = known
            if field is not None:
                request.fields.append(field)
                request.index[b"x-forwarded-for"] = field[1]
            if external is not None:
                if b"x-envoy-external-address" in request.index:
                    request.set(*external)
                else:
                    request.fields.append(external)
                    request.index[b"x-envoy-external-address"] = external[1]
            if not hops or b"x-forwarded-proto" not in request.index:
                request.set(*(_HTTPS if stream.connection.tls is not None else _HTTP))
            return internal
        if xff is not None:
            xff = xff.lstrip(b",")
            request.set(b"x-forwarded-for", xff)  # in one field
        client: Address | None
        if use_remote_address:
            client = address_in_xff(xff, hops - 1) if hops else None
            client = client or peer
            if append_xff and peer.ip is not None:
                own = local_ip if is_loopback(peer) else peer.ip
                xff = xff + b"," + own.encode() if xff else own.encode()
                request.set(b"x-forwarded-for", xff)
            if not hops or b"x-forwarded-proto" not in request.index:
                request.set(*(_HTTPS if stream.connection.tls is not None else _HTTP))
        else:
            client = address_in_xff(xff, hops)
        single = xff is not None and b"," not in xff and not use_remote_address
        internal = single and client is not None and is_internal(client)
        stream.remote_address = client = client or peer
        if use_remote_address and not internal and client.ip is not None:
            request.set(b"x-envoy-external-address", client.ip.encode())
        return internal

    def forwarded_port(stream: Stream, request: RequestHead) -> None:
        """X-Forwarded-Port: the port that the client connected to, unless a trusted proxy has told it."""
        if b"x-forwarded-port" not in request.index or (use_remote_address and not hops):
            port = stream.connection.local_address.port
            if port is not None:
                request.set(b"x-forwarded-port", b"%d" % port)

    def of_peer(peer: Address) -> tuple[Field | None, Field | None, bool]:
        """For requests without X-Forwarded-For: what stands there, the client's address where they are external, and
        whether they are internal. The same for all requests of a connection."""
        internal = is_internal(peer)
        if peer.ip is None:
            return None, None, internal
        own = local_ip if is_loopback(peer) else peer.ip
        return (
            (b"x-forwarded-for", own.encode()) if append_xff else None,
            None if internal else (b"x-envoy-external-address", peer.ip.encode()),
            internal,
        )

    def unusual(stream: Stream, request: RequestHead) -> bool:
        """What only requests with special fields need; True if the request is internal."""
        index = request.index
        if not is_upgrade(index):
            if b"connection" in index:
                request.remove_all(nominated(index[b"connection"]))
                request.remove(b"connection")
            request.remove_all((b"upgrade", b"http2-settings"))
            te = index.get(b"te")
            if te is not None:
                if b"trailers" in te.lower():
                    request.set(b"te", b"trailers")
                else:
                    request.remove(b"te")
        request.remove_all(_HOP_BY_HOP)
        if b"expect" in index and not forward_expect and index[b"expect"].lower() == b"100-continue":
            request.remove(b"expect")
            stream.continue_request()
        internal = addresses(stream, request)
        if internal:
            request.set(b"x-envoy-internal", b"true")
            request.remove(b"x-envoy-upstream-alt-stat-name")  # as Envoy's router does; such statistics are not kept
        else:
            if use_remote_address:
                request.remove_all(_EDGE)
            request.remove_all(internal_headers)
        if stream.connection.tls is None:
            forward_certificate(request, None)
        return internal

    def prepare(stream: Stream) -> bool:
        request = stream.request
        assert request is not None
        index = request.index
        path = request.path
        if path[:1] != b"/" and path:
            stream.manager.stats.downstream_rq_non_relative_path += 1
            return stream.reply(404, details="absolute_path_rejected")
        if not request.authority:
            if request.version == 10 and default_host:
                request.authority = default_host
            elif request.version == 10:
                return stream.reply(400, details="missing_host_header")
        if b"#" in path:
            stream.manager.stats.downstream_rq_failed_path_normalization += 1
            return stream.refuse(400, b"", "path_normalization_failed")
        if normalize is not None and path:
            answered = normalize(stream, request)
            if answered:
                return True
        if strip_host is not None:
            strip_host(stream, request)
        internal = False
        if not special.isdisjoint(index):
            internal = unusual(stream, request)
        elif use_remote_address:
            internal = addresses(stream, request)
            if internal:
                request.set(b"x-envoy-internal", b"true")
        tls = stream.connection.tls
        if tls is not None:
            forward_certificate(request, tls)
            if b"x-forwarded-proto" not in index:
                request.fields.append(_HTTPS)
                index[b"x-forwarded-proto"] = b"https"
        if b"x-forwarded-proto" not in index:
            request.fields.append(_HTTP)
            index[b"x-forwarded-proto"] = b"http"
        elif request.version != 20 and index[b"x-forwarded-proto"] != b"http":
            scheme = index[b"x-forwarded-proto"].lower()
            if scheme == b"https" and not hasattr(request, "url_scheme"):
                request.scheme = scheme
        if request.scheme != b"http":
            if hasattr(request, "url_scheme"):
                if at_edge and tls is None:
                    stream.manager.stats.downstream_cx_protocol_error += 1
                    stream.downstream.close_after_response()
                    stream.on_protocol_error(403, b"Forbidden", "http1.https_url_on_plaintext_connection")
                    return True
            elif request.scheme not in _SCHEMES:
                scheme = index[b"x-forwarded-proto"].lower()
                request.scheme = scheme if scheme in _SCHEMES else b"http" if tls is None else b"https"
        if not plain:
            if new_scheme:
                request.set(b"x-forwarded-proto", new_scheme)
                request.scheme = new_scheme
            if append_port:
                forwarded_port(stream, request)
            if via:
                request.set(b"via", index[b"via"] + b", " + via if b"via" in index else via)
            if add_user_agent:
                request.set(b"x-envoy-downstream-service-cluster", node_cluster)
                if not index.get(b"user-agent"):
                    request.set(b"user-agent", node_cluster)
                if node_id:
                    request.set(b"x-envoy-downstream-service-node", node_id)
        if generate_id:
            if b"x-request-id" not in index:
                identifier = new_request_id(stream.worker.random.getrandbits(128))
                request.fields.append((b"x-request-id", identifier))
                index[b"x-request-id"] = identifier
            elif use_remote_address and not internal and not keep_external_id:
                request.set(b"x-request-id", new_request_id(stream.worker.random.getrandbits(128)))
        return False

    return prepare


_RANDOM_BITS: Final = (1 << 128) - 1 - (0xF << 76) - (0x3 << 62)
_VERSION_AND_VARIANT: Final = (0x4 << 76) | (0x2 << 62)
_groups: Final = Struct("8s4s4s4s12s").unpack


def new_request_id(bits: int) -> bytes:
    """A random (version 4) UUID as text, from 128 random bits (RFC 9562 section 5.4)."""
    return b"-".join(_groups(hexlify((bits & _RANDOM_BITS | _VERSION_AND_VARIANT).to_bytes(16, "big"))))


def is_upgrade(index: dict[bytes, bytes]) -> bool:
    """Whether Connection nominates Upgrade, and Upgrade names something other than cleartext HTTP/2."""
    connection = index.get(b"connection", b"").lower()
    upgrade = index.get(b"upgrade", b"")
    return upgrade.lower() not in (b"", b"h2c") and any(part.strip() == b"upgrade" for part in connection.split(b","))


def upgrade_of(request: RequestHead) -> bytes:
    """The protocol that the request asks to switch to, in lower case; empty if it does not (RFC 9110 section 7.8)."""
    return request.index[b"upgrade"].lower() if is_upgrade(request.index) else b""


_NEVER_NOMINATED: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b"host", b"content-length", b""))


def nominated(connection: bytes) -> list[bytes]:
    """The fields that a Connection field makes hop-by-hop (RFC 9110 section 7.6.1)."""
    return [name for part in connection.lower().split(b",") if (name := part.strip(b" \t")) not in _NEVER_NOMINATED]


def is_loopback(address: Address) -> bool:
    """Whether the peer is on this machine."""
    return address.ip is not None and (address.ip.startswith("127.") or address.ip == "::1")


def address_in_xff(xff: bytes | None, skip: int) -> Address | None:
    """The address ``skip`` places before the last in X-Forwarded-For; None if there is none or it is no IP address."""
    if xff is None:
        return None
    parts = xff.split(b",")
    if skip >= len(parts):
        return None
    text = parts[-1 - skip].strip(b" \t").decode("latin-1")
    try:
        return Address(str(ip_address(text)))
    except ValueError:
        return None


def compile_host_stripping(config: HttpConnectionManager) -> Callable[[Stream, RequestHead], None] | None:
    """Takes the port, or a trailing dot, off the authority where that is configured."""
    any_port, matching = config.strip_any_host_port, config.strip_matching_host_port
    trailing_dot = config.strip_trailing_host_dot
    if not (any_port or matching or trailing_dot):
        return None

    def strip(stream: Stream, request: RequestHead) -> None:
        host, colon, port = request.authority.rpartition(b":")
        if not colon or not port.isdigit() or (b":" in host and not host.endswith(b"]")):
            host, port = request.authority, b""
        if trailing_dot and host.endswith(b"."):
            host = host[:-1]
            request.authority = host + b":" + port if port else host
        if (port and request.method != b"CONNECT") or (port and any_port):
            if any_port or int(port) == stream.connection.local_address.port:
                request.authority = host

    return strip


class DateHeader:
    """The Date field of now, rendered once a second (RFC 9110 section 5.6.7)."""

    __slots__ = ("field", "second")

    def __init__(self) -> None:
        self.second = -1
        self.field = (b"date", b"")

    def at(self, second: int) -> tuple[bytes, bytes]:
        if second != self.second:
            self.second = second
            self.field = (b"date", strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(second)).encode())
        return self.field


def compile_response_finish(config: HttpConnectionManager) -> Callable[[Stream], None]:
    """What is done to every response head last: hop-by-hop fields, Server, Date, Via, the request id."""
    server = (b"server", config.server_name)
    overwrite = config.server_header_transformation == "OVERWRITE"
    append = config.server_header_transformation == "APPEND_IF_ABSENT"
    via = config.via
    always_id = config.always_set_request_id_in_response
    date = DateHeader()
    dropped = _RESPONSE_HOP_BY_HOP.union((b"server",)) if overwrite else _RESPONSE_HOP_BY_HOP

    dropped_names = tuple(dropped)

    def finish(stream: Stream) -> None:
        head = stream.response
        assert head is not None
        index = head.index
        if not dropped.isdisjoint(index):
            if stream.tunnel is not None and b"upgrade" in index:
                head.remove(b"server")
            else:
                head.fields = [field for field in head.fields if field[0] not in dropped]
                for name in dropped_names:
                    if name in index:
                        del index[name]
        fields = head.fields
        if overwrite or (append and b"server" not in index):
            fields.append(server)
            index[b"server"] = server[1]
        if b"date" not in index:
            field = date.at(int(stream.start_time + (stream.now - stream.start)))
            fields.append(field)
            index[b"date"] = field[1]
        if via:
            head.set(b"via", index[b"via"] + b", " + via if b"via" in index else via)
        if always_id:
            identifier = stream.request.index.get(b"x-request-id")
            if identifier is not None:
                head.set(b"x-request-id", identifier)

    return finish
