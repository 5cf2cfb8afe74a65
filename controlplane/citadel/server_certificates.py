"""The certificates by which the control plane's own servers (REST, xDS) are known: made at start, renewed while it runs."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cryptography import x509

from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.signers import SKEW

log = logging.getLogger("controlplane.citadel")

_LOOK = 60.0  # seconds between two looks at the clock
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class ServerCertificates:
    """TLS contexts for servers, whose certificate is replaced when two thirds of its life are over.

    A context is handed out once and stays the same object: connections that are made after a renewal see the new
    certificate, those that are open are not touched. Keys are never written to the disk.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        names: Sequence[str] = (),
        lifetime: datetime.timedelta = datetime.timedelta(days=30),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``names`` are the DNS names and addresses to be known by beside those of loopback; unspecified addresses
        (0.0.0.0) name nothing and are left out.
        """
        self.names = tuple(
            dict.fromkeys([*_LOCAL_NAMES, *(name for name in names if name not in ("", "0.0.0.0", "::"))])
        )
        self._authority = authority
        self._lifetime = lifetime
        self._contexts: list[ssl.SSLContext] = []
        self._verifying: list[ssl.SSLContext] = []
        self._clock = clock
        self._made()
        self._root = authority.certificate
        self._renewal: asyncio.Task[None] | None = None
        authority.listeners.append(self._authority_changed)

    def context(self, *protocols: str, client_certificates: bool = False) -> ssl.SSLContext:
        """A server's context that offers these application protocols ("h2"). With ``client_certificates`` those who have a
        certificate of this mesh may show it; one of another authority fails the handshake.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A session that is resumed is not verified again, and tickets cost more than those who stay connected save by them.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if client_certificates:
            context.verify_mode = ssl.CERT_OPTIONAL
            self._verifying.append(context)
            self._believe(context)
        self._load(context)
        self._contexts.append(context)
        return context

    @property
    def ends(self) -> float:
        """When the certificate of now does, seconds since the epoch."""
        return x509.load_pem_x509_certificates(self._chain)[0].not_valid_after_utc.timestamp()

    def renew(self) -> None:
        """Take a new certificate at once."""
        self._made()
        for context in self._contexts:
            self._load(context)

    def start(self) -> None:
        """Renew from now on; needs a running loop."""
        self._renewal = asyncio.get_running_loop().create_task(self._keep_renewed())

    async def stop(self) -> None:
        """Renew no more."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
            self._renewal = None

    def _made(self) -> None:
        self._chain, self._key = self._authority.server_certificate(self.names, self._lifetime)
        made, ends = self._clock(), x509.load_pem_x509_certificate(self._chain).not_valid_after_utc.timestamp()
        self._good_from, self._due = made - SKEW.total_seconds(), made + (ends - made) * 2 / 3

    async def _keep_renewed(self) -> None:
        # By the wall's clock, which goes on while a machine sleeps, and which somebody may set.
        while True:
            await asyncio.sleep(min(_LOOK, self._lifetime.total_seconds() / 10))
            if self._good_from <= self._clock() < self._due:
                continue
            try:
                self.renew()
            except Exception:  # whatever it is: nobody else would try again
                log.exception("the servers' certificate is not renewed; again in %.0f s", _LOOK)

    def _authority_changed(self) -> None:
        # A context cannot forget a root: whose certificate is of one that is no longer trusted is refused by Credentials.
        for context in self._verifying:
            self._believe(context)
        root = self._authority.certificate
        if root != self._root:
            self._root = root
            self.renew()

    def _believe(self, context: ssl.SSLContext) -> None:
        # What is revoked is refused by Credentials, with the reason and in the audit log: a handshake that fails has neither.
        context.load_verify_locations(cadata=self._authority.pem.decode())

    def _load(self, context: ssl.SSLContext) -> None:
        with _in_memory(self._chain) as chain, _in_memory(self._key) as key:
            context.load_cert_chain(chain, key)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file in memory: the ssl module reads certificates from paths alone."""
    descriptor = os.memfd_create("mizzen", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
