"""The certificates by which the control plane's own servers (REST, xDS) are known: made at start, renewed while it runs."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from collections.abc import Sequence
from contextlib import ExitStack

from controlplane.citadel.authority import CertificateAuthority

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
        self._chain, self._key = authority.server_certificate(self.names, lifetime)
        self._renewal: asyncio.Task[None] | None = None

    def context(self, *protocols: str, client_certificates: bool = False) -> ssl.SSLContext:
        """A server's context that offers these application protocols ("h2"). With ``client_certificates`` those who have a
        certificate of this mesh may show it; one of another authority fails the handshake.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if client_certificates:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self._authority.pem.decode())
        self._load(context)
        self._contexts.append(context)
        return context

    def renew(self) -> None:
        """Take a new certificate at once."""
        self._chain, self._key = self._authority.server_certificate(self.names, self._lifetime)
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

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() * 2 / 3)
            self.renew()

    def _load(self, context: ssl.SSLContext) -> None:
        # The ssl module reads certificates from paths alone: files in memory have one, too.
        with ExitStack() as files:
            paths = []
            for content in (self._chain, self._key):
                descriptor = os.memfd_create("mizzen", os.MFD_CLOEXEC)
                files.callback(os.close, descriptor)
                os.write(descriptor, content)
                paths.append(f"/proc/self/fd/{descriptor}")
            context.load_cert_chain(*paths)
