"""TLS of accepted connections: `DownstreamTlsContext` at work.

The context is chosen by the server name before the handshake begins, never swapped within it: that would skip what the
other context asks of clients. Contexts are made once for each version of the secrets; connections keep the one that they
began with.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

from sidecar.config.tls import DownstreamTlsContext
from sidecar.core.deadlines import Deadlines
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.transport.connection import TlsConnection
from sidecar.transport.contexts import LoadedCertificate, load_certificate, server_context
from sidecar.transport.failures import TlsContextError, TlsFailure, verification_failed
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.identity import UNREADABLE, CertificateDetails, ConnectionTls, details_of
from sidecar.transport.rotation import Rotation, SecretsOf
from sidecar.transport.secrets import Secrets
from sidecar.transport.server_names import ServerNames
from sidecar.transport.statistics import FactoryStats, TlsStats
from sidecar.transport.verification import NO_VERIFICATION, Verification, compile_validation

_log = logging.getLogger(__name__)

_MOST_HELLO: Final = 16384
"""Bytes of a ClientHello that are waited for."""

_HANDSHAKE_RECORD: Final = 22

_UNREADABLE: Final = "?"
"""In place of a server name, where there is no ClientHello; no name is ever this."""

TIMEOUT_DETAILS: Final = "transport socket timeout was reached"
HANDSHAKE_TIMEOUT: Final = 15.0
"""Seconds for a handshake where the configuration gives no `transport_socket_connect_timeout`."""


class Hello(Protocol):
    """What is read of a ClientHello."""

    @property
    def server_name(self) -> str: ...


ReadHello = Callable[[bytes, int], Hello | None]
"""Reads a ClientHello of at most so many bytes; None if it has not come whole. Raises ValueError for anything else."""


class _ServerContext:
    """One context with the certificate that it shows (of several, the first) and what it asks of clients."""

    __slots__ = ("asks", "context", "local", "verification")

    def __init__(self, context: ssl.SSLContext, local: CertificateDetails, verification: Verification) -> None:
        self.context = context
        self.asks = context.verify_mode != ssl.CERT_NONE  # clients for a certificate
        self.local = local
        self.verification = verification


_Names = ServerNames[_ServerContext]


class DownstreamTls:
    """The TLS of one filter chain. Raises TlsContextError when its secrets are there and make no context.

    ``handshake_timeout`` is in seconds, 0 for none; ``on_timeout`` counts those that it ended. ``read_hello`` is only
    asked where several certificates or ``require_sni`` make the name matter and no listener filter has read it.
    """

    __slots__ = ("accept_inner", "config", "curve", "deadlines", "factory", "limit", "on_timeout", "read_hello", "rotation",
                 "stats", "worker")  # fmt: skip

    def __init__(
        self,
        config: DownstreamTlsContext,
        secrets: Secrets,
        stats: TlsStats,
        factory: FactoryStats,
        worker: Worker,
        limit: HandshakeLimit,
        read_hello: ReadHello,
        accept_inner: Callable[[ConnectionInfo], Any],
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        on_timeout: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.stats = stats
        self.factory = factory
        self.worker = worker
        self.limit = limit
        self.read_hello = read_hello
        self.accept_inner = accept_inner
        self.deadlines = Deadlines(worker, handshake_timeout or inf)
        self.curve = config.common_tls_context.tls_params.ecdh_curve_name
        self.on_timeout = on_timeout
        self.rotation: Rotation[_Names] = Rotation(
            config.common_tls_context, secrets, self._build, config.place, factory
        )

    def accept(self, info: ConnectionInfo) -> DownstreamConnection:
        """The protocol for a new connection; ``accept_inner`` is asked for the one inside when ``info.tls`` is set."""
        return DownstreamConnection(self, info)

    def close(self) -> None:
        """Watch secrets no more."""
        self.rotation.close()

    def _build(self, secrets: SecretsOf) -> _Names:
        config = self.config
        validation = secrets.validation
        verification = NO_VERIFICATION if validation is None else compile_validation(validation)
        if verification.needs_certificate and (validation is None or not validation.trusts):
            raise TlsContextError("names and digests of client certificates are checked only with a trusted_ca")
        required = config.require_client_certificate or verification.needs_certificate
        common = config.common_tls_context

        def make(together: tuple[LoadedCertificate, ...]) -> _ServerContext:
            context = server_context(
                common.tls_params,
                together,
                validation,
                common.alpn_protocols,
                require_certificate=required,
                tickets=config.stateless_resumption,
                prefer_client_ciphers=config.prefer_client_ciphers,
                roots=verification.authorities,
            )
            return _ServerContext(context, together[0].details, verification)

        return ServerNames(
            [load_certificate(certificate) for certificate in secrets.certificates],
            config.full_scan_certs_on_sni_mismatch,
            make,
        )

    def __repr__(self) -> str:
        return f"<DownstreamTls {self.config.place} {self.rotation!r}>"


class DownstreamConnection(TlsConnection):
    """An accepted connection: waits for the ClientHello if the server name matters, then shakes hands."""

    __slots__ = ("chosen", "info", "owner", "server_name")

    def __init__(self, owner: DownstreamTls, info: ConnectionInfo) -> None:
        TlsConnection.__init__(self, owner.worker, owner.stats, owner.limit, owner.deadlines)
        self.owner = owner
        self.info = info
        self.curve = owner.curve
        self.server_name = info.requested_server_name
        self.chosen: _ServerContext | None = None

    def start(self) -> None:
        owner = self.owner
        if owner.rotation.current is None:
            owner.factory.downstream_context_secrets_not_ready += 1
            _log.debug("%r: no secrets yet", owner)
            self.give_up(TlsFailure("TLS_error:Secret is not supplied by SDS", ""))

    def is_asking(self) -> bool:
        return not _is_begun_record(self.head)

    def hello(self) -> None:
        names = self.owner.rotation.current
        assert names is not None
        if self.info.transport_protocol != "tls" and (names.matter or self.owner.config.require_sni):
            try:
                found = self.owner.read_hello(self.head, _MOST_HELLO)
            except ValueError:  # OpenSSL will say what is wrong with it
                self.server_name = _UNREADABLE
            else:
                if found is None:
                    return
                self.server_name = found.server_name
        if self.owner.config.require_sni and not self.server_name:
            self.give_up(TlsFailure("TLS_error:no server name", "connection_error"))
            return
        self.chosen = names.find(self.server_name)
        self.set_up(self.chosen.context.wrap_bio(self.incoming, self.outgoing, server_side=True))

    def finish(self, ssl_object: ssl.SSLObject) -> tuple[ConnectionTls, TlsFailure | None]:
        chosen = self.chosen
        assert chosen is not None
        if not chosen.asks:
            return ConnectionTls(ssl_object, None, chosen.local, self.server_name), None
        der = ssl_object.getpeercert(binary_form=True)
        return checked(ssl_object, der, chosen.local, self.server_name, chosen.verification)

    def opened(self) -> Any:
        info = self.info
        info.tls = self.tls
        return self.owner.accept_inner(info)

    def failed(self, failure: TlsFailure) -> None:
        if failure.words:
            self.info.transport_failure_reason = failure.words

    def timed_out(self) -> None:
        self.info.termination_details = TIMEOUT_DETAILS
        self.owner.on_timeout()


def _is_begun_record(data: bytes) -> bool:
    """Whether more is to come of the first record: OpenSSL would hold room for the longest one until then."""
    if data[0] != _HANDSHAKE_RECORD:
        return False
    length = int.from_bytes(data[3:5], "big")
    return len(data) < 5 or (len(data) < 5 + length and length <= _MOST_HELLO)


def checked(
    ssl_object: ssl.SSLObject,
    der: bytes | None,
    local: CertificateDetails | None,
    server_name: str,
    verification: Verification,
    names: tuple[str, ...] = (),
) -> tuple[ConnectionTls, TlsFailure | None]:
    """Who is at the other end, and what is wrong with its certificate (``der``, None if it showed none)."""
    peer = None if der is None else details_of(der)
    try:
        tls = ConnectionTls(ssl_object, peer, local, server_name)
    except UNREADABLE:
        peer = None
        tls = ConnectionTls(ssl_object, None, local, server_name)
    failure = None
    if der is not None and peer is None:
        failure = verification_failed("the certificate cannot be read", "fail_verify_error")
    elif peer is not None and (names or verification.asks):
        failure = verification.check(peer, names, tls)
    if peer is not None and failure is None and tls.resumed:
        failure = verification.out_of_date(peer)
    return tls, failure
