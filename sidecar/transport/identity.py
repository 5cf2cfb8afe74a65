"""Who is at the ends of a TLS connection: certificates as logs, RBAC and x-forwarded-client-cert want to see them.

`cryptography` reads the certificates, once for each certificate however many connections show it. The words are
BoringSSL's as Envoy uses them: names by RFC 2253, numbers in lower-case hex, PEM percent-encoded.
"""

from __future__ import annotations

import ssl
from base64 import standard_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from hashlib import sha1, sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

_SHORT_NAMES: Final = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.STREET_ADDRESS: "street",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.INITIALS: "initials",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.TITLE: "title",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.USER_ID: "UID",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.X500_UNIQUE_IDENTIFIER: "x500UniqueIdentifier",
    NameOID.UNSTRUCTURED_NAME: "unstructuredName",
}
UNREADABLE: Final = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What reading a certificate may raise: `cryptography` is stricter than OpenSSL."""

_ESCAPED: Final = frozenset(b',+"\\<>;')
_PERCENT: Final = str.maketrans({"\n": "%0A", " ": "%20", "+": "%2B", "/": "%2F", "=": "%3D"})


class CertificateDetails:
    """What one certificate says. Everything but ``der`` is worked out when it is first asked for."""

    def __init__(self, der: bytes) -> None:
        self.der = der

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The parsed certificate. Raises one of ``UNREADABLE``, as everything else here may."""
        return x509.load_der_x509_certificate(self.der)

    @cached_property
    def subject(self) -> bytes:
        """By RFC 2253."""
        return rfc2253(self.certificate.subject)

    @cached_property
    def issuer(self) -> bytes:
        """By RFC 2253."""
        return rfc2253(self.certificate.issuer)

    @cached_property
    def serial(self) -> str:
        """In hex, of an even number of digits."""
        digits = f"{self.certificate.serial_number:x}"
        return digits if len(digits) % 2 == 0 else f"0{digits}"

    @cached_property
    def sans(self) -> tuple[tuple[str, bytes], ...]:
        """The subject alternative names in their order, each with its type: URI, DNS, IP_ADDRESS or EMAIL."""
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        return tuple(found for name in names if (found := _san(name)) is not None)

    @cached_property
    def uri_sans(self) -> tuple[bytes, ...]:
        return self._sans_of("URI")

    @cached_property
    def dns_sans(self) -> tuple[bytes, ...]:
        return self._sans_of("DNS")

    @cached_property
    def ip_sans(self) -> tuple[bytes, ...]:
        return self._sans_of("IP_ADDRESS")

    @cached_property
    def email_sans(self) -> tuple[bytes, ...]:
        return self._sans_of("EMAIL")

    @cached_property
    def sha256(self) -> str:
        """The fingerprint, in lower-case hex."""
        return sha256(self.der).hexdigest()

    @cached_property
    def sha1(self) -> str:
        """The short fingerprint, in lower-case hex."""
        return sha1(self.der, usedforsecurity=False).hexdigest()

    @cached_property
    def spki_sha256(self) -> bytes:
        """The SHA-256 digest of the public key with its parameters."""
        key = self.certificate.public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()

    @cached_property
    def url_encoded_pem(self) -> str:
        """The certificate in PEM, percent-encoded."""
        return pem(self.der).translate(_PERCENT)

    @property
    def valid_from(self) -> datetime:
        return self.certificate.not_valid_before_utc

    @property
    def valid_until(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def is_ecdsa(self) -> bool:
        """Whether the key is one of elliptic curves."""
        return isinstance(self.certificate.public_key(), ec.EllipticCurvePublicKey)

    @cached_property
    def rsa_signs(self) -> bool:
        """False for an RSA key that, by its key usage, must not sign: TLS with forward secrecy needs it to."""
        if not isinstance(self.certificate.public_key(), rsa.RSAPublicKey):
            return True
        try:
            return self.certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        except x509.ExtensionNotFound:
            return True

    @property
    def server_names(self) -> tuple[str, ...]:
        """The names that it serves, in lower case: DNS names, or without them the common name, as Envoy does."""
        if self.dns_sans:
            return tuple(name.decode("ascii", "replace").lower() for name in self.dns_sans)
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(name.value).lower() for name in names[:1])

    def _sans_of(self, kind: str) -> tuple[bytes, ...]:
        return tuple(value for found, value in self.sans if found == kind)

    def __repr__(self) -> str:
        return f"<CertificateDetails {self.sha256[:16]}>"


@lru_cache(maxsize=256)
def details_of(der: bytes) -> CertificateDetails:
    """The details of a certificate; the same object for the same certificate, as long as few others came between."""
    return CertificateDetails(der)


class ConnectionTls:
    """One TLS connection: what was agreed on, and both certificates. It is what ``ConnectionInfo.tls`` holds.

    ``peer`` is None when the peer showed no certificate. ``version`` and ``cipher`` are as Envoy logs them.
    ``uri_sans``, ``dns_sans`` and ``subject`` are the peer's. ``forwarded`` is for the connection manager, to remember
    what it tells upstreams of the peer. ``opened`` is when the handshake was done, on the worker's clock.
    """

    __slots__ = ("_ssl_object", "application_protocol", "cipher", "dns_sans", "forwarded", "local", "opened",
                 "peer", "presented", "resumed", "server_name", "subject", "uri_sans", "version")  # fmt: skip

    def __init__(
        self,
        ssl_object: ssl.SSLObject,
        peer: CertificateDetails | None,
        local: CertificateDetails | None,
        server_name: str = "",
    ) -> None:
        self._ssl_object = ssl_object
        within: Any = ssl_object._sslobj  # type: ignore[attr-defined]
        self.version = within.version() or ""
        cipher = within.cipher()
        self.cipher = "" if cipher is None else cipher[0]
        self.application_protocol = within.selected_alpn_protocol() or ""
        self.resumed = bool(within.session_reused)
        self.server_name = server_name
        self.local = local
        self.peer = peer
        self.presented = peer is not None
        self.uri_sans: Sequence[bytes] = () if peer is None else peer.uri_sans
        self.dns_sans: Sequence[bytes] = () if peer is None else peer.dns_sans
        self.subject = b"" if peer is None else peer.subject
        self.forwarded: bytes | None = None
        self.opened = 0.0

    @property
    def session_id(self) -> str:
        """In lower-case hex, empty if there is none."""
        session = self._ssl_object.session
        return "" if session is None or self.version == "TLSv1.3" else session.id.hex()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates that the peer showed, in DER, its own first."""
        return () if self.peer is None else chain_of(self._ssl_object, self.peer.der)

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for two connections whose upstreams are told the same of their certificates."""
        return self.local, self.chain

    @property
    def url_encoded_chain(self) -> str:
        """The peer's certificates in PEM, percent-encoded."""
        return "".join(details_of(der).url_encoded_pem for der in self.chain)

    def __repr__(self) -> str:
        return f"<ConnectionTls {self.version} {self.cipher} {self.subject.decode()!r}>"


def chain_of(ssl_object: ssl.SSLObject, leaf: bytes) -> tuple[bytes, ...]:
    """The certificates that the peer sent, in DER; its own alone where a resumed session forgot the others.

    Python has it as a public method from 3.13 on, and before as one of the object within.
    """
    method: Callable[[], Sequence[Any] | None] | None = getattr(ssl_object, "get_unverified_chain", None)
    chain = (method or ssl_object._sslobj.get_unverified_chain)()  # type: ignore[attr-defined]
    if not chain:
        return (leaf,)
    ders = (one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in chain)
    return tuple(ders)


def pem(der: bytes) -> str:
    """A certificate in PEM, with a line feed at the end."""
    text = standard_b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def rfc2253(name: x509.Name) -> bytes:
    """A name by RFC 2253, last part first, bytes above ASCII and controls escaped in hex."""
    return b",".join(b"+".join(map(_attribute, part)) for part in reversed(name.rdns))


def _attribute(attribute: x509.NameAttribute[Any]) -> bytes:
    short = _SHORT_NAMES.get(attribute.oid)
    value = attribute.value if isinstance(attribute.value, bytes) else attribute.value.encode()
    if short is None:
        encoded = bytes((attribute._type.value,)) + _length(len(value)) + value
        return f"{attribute.oid.dotted_string}=#".encode() + encoded.hex().upper().encode()
    escaped = bytearray()
    last = len(value) - 1
    for at, byte in enumerate(value):
        outer = at == 0 or at == last
        if byte in _ESCAPED or (byte == 0x20 and outer) or (byte == 0x23 and at == 0):
            escaped += b"\\" + bytes((byte,))
        elif byte < 0x20 or byte >= 0x7F:
            escaped += b"\\%02X" % byte
        else:
            escaped.append(byte)
    return short.encode() + b"=" + bytes(escaped)


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(digits),)) + digits


def _san(name: x509.GeneralName) -> tuple[str, bytes] | None:
    if isinstance(name, x509.UniformResourceIdentifier):
        return "URI", name.value.encode()
    if isinstance(name, x509.DNSName):
        return "DNS", name.value.encode()
    if isinstance(name, x509.IPAddress):
        return "IP_ADDRESS", str(name.value).encode()
    if isinstance(name, x509.RFC822Name):
        return "EMAIL", name.value.encode()
    return None
