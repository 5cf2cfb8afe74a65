"""TLS to endpoints: `UpstreamTlsContext` at work."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from ipaddress import ip_address
from typing import Any

from sidecar.config.tls import UpstreamTlsContext
from sidecar.config.tls_secrets import NO_VALIDATION
from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions
from sidecar.core.worker import Worker
from sidecar.transport.bridge import SocketBridge
from sidecar.transport.connection import TlsConnection
from sidecar.transport.contexts import client_context, load_certificate
from sidecar.transport.downstream import checked
from sidecar.transport.failures import TlsContextError, TlsFailure, verification_failed
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.identity import CertificateDetails, ConnectionTls
from sidecar.transport.rotation import Rotation, SecretsOf
from sidecar.transport.secrets import Secrets
from sidecar.transport.statistics import FactoryStats, TlsStats
from sidecar.transport.verification import NO_VERIFICATION, Verification, compile_validation


class _ClientContext:
    """A context with the certificate that it shows, what it asks of endpoints, and the sessions to resume, newest last.

    Sessions belong to their context and are kept by server name: new secrets begin with none.
    """

    __slots__ = ("context", "local", "offered", "sessions", "verification")

    def __init__(
        self, context: ssl.SSLContext, local: CertificateDetails | None, verification: Verification, sessions: int
    ) -> None:
        self.context = context
        self.offered: tuple[str, ...] = ()
        self.local = local
        self.verification = verification
        self.sessions: deque[tuple[str, ssl.SSLSession]] = deque(maxlen=sessions)

    def offer(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """The context, offering these by ALPN to the next connection, which takes a copy of them."""
        if protocols != self.offered:
            self.context.set_alpn_protocols(list(protocols))
            self.offered = protocols
        return self.context

    def take_session(self, name: str) -> ssl.SSLSession | None:
        """The newest session with this server name; one of TLS 1.3 is given once (RFC 8446 appendix C.4)."""
        for entry in reversed(self.sessions):
            if entry[0] == name:
                if entry[1].has_ticket:
                    self.sessions.remove(entry)
                return entry[1]
        return None


class UpstreamTls:
    """The TLS of one cluster. Raises TlsContextError when its secrets are there and make no context.

    ``options`` are for connections that come with none of their own. ``buffer_limit`` is in bytes.
    """

    __slots__ = ("buffer_limit", "config", "factory", "limit", "options", "rotation", "stats", "worker")

    def __init__(
        self,
        config: UpstreamTlsContext,
        secrets: Secrets,
        stats: TlsStats,
        factory: FactoryStats,
        worker: Worker,
        limit: HandshakeLimit,
        options: TransportSocketOptions = OFFERING_NOTHING,
        buffer_limit: int = 1 << 20,
    ) -> None:
        self.config = config
        self.stats = stats
        self.factory = factory
        self.worker = worker
        self.limit = limit
        self.buffer_limit = buffer_limit
        self.options = options
        self.rotation: Rotation[_ClientContext] = Rotation(
            config.common_tls_context, secrets, self._build, config.place, factory
        )

    def connect(
        self, inner: Any, *, hostname: str = "", options: TransportSocketOptions | None = None
    ) -> UpstreamConnection:
        """The protocol for a new connection, around the protocol ``inner``; await its ``ready`` when it is connected.

        ``hostname`` is the endpoint's, for `auto_host_sni`. Without ``options`` those of the cluster count, but for who
        works on bare sockets: nothing is known of what goes through these.
        """
        config = self.config
        if options is None:
            options = OFFERING_NOTHING if isinstance(inner, SocketBridge) else self.options
        sni = options.server_name or (hostname if config.auto_host_sni else "") or config.sni
        names = options.subject_alt_names
        if config.auto_sni_san_validation and sni and not names:
            names = (sni,)
        protocols = options.instead or config.common_tls_context.alpn_protocols or options.protocols
        return UpstreamConnection(self, inner, sni, names, protocols)

    def bridge(self) -> SocketBridge:
        """For those who want a socket and not a transport."""
        return SocketBridge(self.worker.loop, self.buffer_limit)

    def close(self) -> None:
        """Watch secrets no more."""
        self.rotation.close()

    def _build(self, secrets: SecretsOf) -> _ClientContext:
        config = self.config
        loaded = [load_certificate(certificate) for certificate in secrets.certificates]
        validation = secrets.validation
        asked = validation
        if asked is not None and asked.accepts_untrusted:
            asked = None  # as Envoy: whatever is wrong, names and digests included, does not matter
        verification = NO_VERIFICATION
        if asked is not None or config.enforce_rsa_key_usage:
            verification = compile_validation(asked or NO_VALIDATION, config.enforce_rsa_key_usage)
        context = client_context(config.common_tls_context.tls_params, loaded, validation, verification.authorities)
        if context.verify_mode == ssl.CERT_NONE and config.auto_sni_san_validation:
            raise TlsContextError("auto_sni_san_validation needs a trusted_ca that is verified against")
        local = loaded[0].details if loaded else None
        return _ClientContext(context, local, verification, config.max_session_keys)

    def __repr__(self) -> str:
        return f"<UpstreamTls {self.config.place} {self.rotation!r}>"


class UpstreamConnection(TlsConnection):
    """A connection to an endpoint."""

    __slots__ = ("_ready", "chosen", "inside", "names", "owner", "protocols", "server_name")

    speaks_first = True

    def __init__(
        self, owner: UpstreamTls, inner: Any, server_name: str, names: tuple[str, ...], protocols: tuple[str, ...]
    ) -> None:
        super().__init__(owner.worker, owner.stats, owner.limit)
        self.owner = owner
        self.inside = inner
        self.curve = owner.config.common_tls_context.tls_params.ecdh_curve_name
        self.server_name = server_name
        self.names = names
        self.protocols = protocols
        self.chosen: _ClientContext | None = None
        self._ready: asyncio.Future[None] | None = None

    async def ready(self) -> None:
        """Wait for the end of the handshake. Raises TlsFailure. When cancelled, it aborts the connection."""
        if self.failure is not None:
            raise self.failure
        if self.inner is None:
            self._ready = self.worker.loop.create_future()
            try:
                await self._ready
            except asyncio.CancelledError:
                self.abort()
                raise

    def start(self) -> None:
        chosen = self.chosen = self.owner.rotation.current
        if chosen is None:
            self.owner.factory.upstream_context_secrets_not_ready += 1
            self.give_up(TlsFailure("TLS_error:Secret is not supplied by SDS", ""))
            return
        name = self.server_name
        if self.names and chosen.context.verify_mode == ssl.CERT_NONE:
            self.give_up(verification_failed("names mean nothing without a trusted_ca", "fail_verify_san"))
            return
        self.session_wanted = chosen.sessions.maxlen != 0
        session = chosen.take_session(name) if self.session_wanted else None
        sent = name if name and not _is_ip(name) else None
        try:
            made = chosen.offer(self.protocols).wrap_bio(
                self.incoming, self.outgoing, server_hostname=sent, session=session
            )
        except ValueError as error:
            self.give_up(TlsFailure(f"TLS_error:{name!r} is no server name: {error}", "connection_error"))
            return
        self.set_up(made)

    def is_asking(self) -> bool:
        return True

    def hello(self) -> None:
        """The first word is ours, and said as soon as it is the handshake's turn."""

    def finish(self, ssl_object: ssl.SSLObject) -> tuple[ConnectionTls, TlsFailure | None]:
        chosen = self.chosen
        assert chosen is not None
        der = ssl_object.getpeercert(binary_form=True)
        return checked(ssl_object, der, chosen.local, self.server_name, chosen.verification, self.names)

    def opened(self) -> Any:
        inside, self.inside = self.inside, None
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        return inside

    def failed(self, failure: TlsFailure) -> None:
        self.inside = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(failure)

    def timed_out(self) -> None:
        """Connecting has its time limit elsewhere."""

    def keep_session(self) -> None:
        """Keep the session once it has its ticket (or, without tickets, its number)."""
        assert self.ssl_object is not None and self.chosen is not None and self.tls is not None
        session = self.ssl_object.session
        if session is None or (self.tls.version == "TLSv1.3" and not session.has_ticket):
            return
        self.session_wanted = False
        self.chosen.sessions.append((self.server_name, session))


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
