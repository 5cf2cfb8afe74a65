"""TLS as a client and as a server of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controlplane.model.causes import Cause, Reason
from controlplane.model.resource import Model
from controlplane.model.values import Bool, Str

TLSProtocol = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]

_VERSIONS = ("TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")


class ClientTLSSettings(Model):
    """How connections to a service are secured."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: Str | None = None
    private_key: Str | None = None
    ca_certificates: Str | None = None
    ca_crl: Str | None = None
    credential_name: Str | None = None
    subject_alt_names: tuple[Str, ...] = ()
    sni: Str | None = None
    insecure_skip_verify: Bool | None = None

    def problems(self) -> Iterable[Cause]:
        files = {
            "clientCertificate": self.client_certificate,
            "privateKey": self.private_key,
            "caCertificates": self.ca_certificates,
        }
        given = [name for name, value in files.items() if value]
        if self.insecure_skip_verify and self.mode not in ("SIMPLE", "MUTUAL"):
            yield Cause("insecureSkipVerify", f"has no effect in mode {self.mode}: remove it, or use SIMPLE or MUTUAL")
        if self.insecure_skip_verify and self.ca_certificates:
            yield Cause("caCertificates", "is not looked at with insecureSkipVerify: remove one of them")
        if self.insecure_skip_verify and self.subject_alt_names:
            yield Cause("subjectAltNames", "is not looked at with insecureSkipVerify: remove one of them")
        if self.credential_name:
            if self.mode in ("DISABLE", "ISTIO_MUTUAL"):
                yield Cause("credentialName", f"has no effect in mode {self.mode}: remove it, or use SIMPLE or MUTUAL")
            for name in given:
                yield Cause(name, "certificates come from credentialName: remove one of them")
            return
        if self.mode == "MUTUAL":
            for name in ("clientCertificate", "privateKey"):
                if not files[name]:
                    yield Cause(name, "is required in mode MUTUAL: give the file, or a credentialName", Reason.REQUIRED)
        elif self.mode == "ISTIO_MUTUAL":
            for name in given:
                yield Cause(name, "the mesh's own certificates are used in mode ISTIO_MUTUAL: remove it")


class TLSCertificate(Model):
    """One certificate of several, by files."""

    server_certificate: Str | None = None
    private_key: Str | None = None
    ca_certificates: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.server_certificate:
            yield Cause("serverCertificate", "is required: give the file of the certificate", Reason.REQUIRED)
        if not self.private_key:
            yield Cause("privateKey", "is required: give the file of the key", Reason.REQUIRED)


class ServerTLSSettings(Model):
    """How connections from clients are secured, by a gateway or at a sidecar's ingress listener."""

    https_redirect: Bool | None = None
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = (
        "PASSTHROUGH"
    )
    server_certificate: Str | None = None
    private_key: Str | None = None
    ca_certificates: Str | None = None
    ca_crl: Str | None = None
    credential_name: Str | None = None
    credential_names: tuple[Str, ...] = ()
    ca_cert_credential_name: Str | None = None
    tls_certificates: tuple[TLSCertificate, ...] = ()
    subject_alt_names: tuple[Str, ...] = ()
    verify_certificate_spki: tuple[Str, ...] = ()
    verify_certificate_hash: tuple[Str, ...] = ()
    min_protocol_version: TLSProtocol = "TLS_AUTO"
    max_protocol_version: TLSProtocol = "TLS_AUTO"
    cipher_suites: tuple[Str, ...] = ()

    @property
    def terminates(self) -> bool:
        """Whether the proxy opens the connection, so that it needs a certificate."""
        return self.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")

    @property
    def credentials(self) -> tuple[str, ...]:
        """The names of the Secrets that its certificates come from; empty if those are files."""
        return self.credential_names or ((self.credential_name,) if self.credential_name else ())

    @property
    def roots_file(self) -> str:
        """The file of the roots of its clients' certificates: its own, else the first that a certificate of several has."""
        of_certificates = (certificate.ca_certificates for certificate in self.tls_certificates)
        return self.ca_certificates or next(filter(None, of_certificates), "")

    def problems(self) -> Iterable[Cause]:
        yield from self._certificate_problems()
        low, high = self.min_protocol_version, self.max_protocol_version
        if low != "TLS_AUTO" and high != "TLS_AUTO" and _VERSIONS.index(low) > _VERSIONS.index(high):
            yield Cause("maxProtocolVersion", f"{high} is below minProtocolVersion {low}: raise it, or lower the other")

    def _certificate_problems(self) -> Iterator[Cause]:
        files = {
            "serverCertificate": self.server_certificate,
            "privateKey": self.private_key,
            "caCertificates": self.ca_certificates,
        }
        sources = [
            name
            for name, value in (
                ("credentialName", self.credential_name),
                ("credentialNames", self.credential_names),
                ("tlsCertificates", self.tls_certificates),
                ("serverCertificate", self.server_certificate),
            )
            if value
        ]
        if self.mode == "ISTIO_MUTUAL":
            for name in [*sources, *(name for name in ("privateKey", "caCertificates") if files[name])]:
                yield Cause(name, "the mesh's own certificates are used in mode ISTIO_MUTUAL: remove it")
            return
        if not self.terminates:
            return
        for name in sources[1:]:
            yield Cause(name, f"certificates come from {sources[0]}: remove one of them")
        if not sources:
            yield Cause(
                "serverCertificate",
                f"is required in mode {self.mode}: give serverCertificate and privateKey, or a credentialName",
                Reason.REQUIRED,
            )
        elif self.server_certificate and not self.private_key:
            yield Cause("privateKey", "is required beside serverCertificate: give the file of the key", Reason.REQUIRED)
        # Without roots a proxy would let in clients with any certificate.
        has_roots = self.credentials or self.ca_cert_credential_name or self.roots_file
        if self.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and sources and not has_roots:
            yield Cause(
                "caCertificates", f"is required in mode {self.mode}: give the roots of the clients", Reason.REQUIRED
            )
        if self.credentials and self.ca_certificates:
            yield Cause("caCertificates", f"the roots come from {sources[0]} too: remove one of them")
        if self.ca_crl and self.credential_name:
            yield Cause("caCrl", "the list comes from credentialName too: put it there")
        if self.ca_crl and self.mode == "SIMPLE":
            yield Cause("caCrl", "has no effect in mode SIMPLE, which asks clients for no certificate: remove it")
