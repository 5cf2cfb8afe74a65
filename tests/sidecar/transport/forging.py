"""Certificates that somebody made up, and a relay that changes them on the way: what no peer with an identity would show."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.sidecar.transport.certificates import Authority, Certificate, general_name

HANDSHAKE, CERTIFICATE = 22, 11
"""The type of a record (RFC 8446 section 5.1), and of a message (section 4)."""


def self_signed(name: str, issuer: x509.Name | None = None, *, signs: bool = False) -> Certificate:
    """A certificate that vouches for itself; with ``issuer`` it bears the name of somebody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name_of = issuer or x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name_of)
        .issuer_name(name_of)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([general_name(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(made, key)


def with_a_key_of_ones_own(victim: Certificate) -> Certificate:
    """Somebody's certificate for a thief who has not its key: the public half is the certificate's, so that TLS libraries
    take the pair, and what is signed is signed by another key.
    """
    numbers = victim.certificate.public_key()
    assert isinstance(numbers, ec.EllipticCurvePublicKey)
    return replace(victim, key=_Mixed(numbers, ec.generate_private_key(ec.SECP256R1())))  # type: ignore[arg-type]


class _Mixed:
    """The private half of one key with the public half of another; it can be written, no more."""

    def __init__(self, public: ec.EllipticCurvePublicKey, private: ec.EllipticCurvePrivateKey) -> None:
        self.public, self.private = public, private

    def private_bytes(self, encoding: object, format: object, encryption: object) -> bytes:
        written = self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        mixed = written.replace(self.private.public_key().public_bytes(*point), self.public.public_bytes(*point))
        assert mixed != written
        body = base64.encodebytes(mixed)
        return b"-----BEGIN EC PRIVATE KEY-----\n" + body + b"-----END EC PRIVATE KEY-----\n"


def altered(one: Certificate, old: bytes, new: bytes) -> Certificate:
    """The certificate with some of its bytes exchanged, and its signature as it was."""
    assert one.der.count(old) == 1 and len(old) == len(new)
    return replace(one, certificate=x509.load_der_x509_certificate(one.der.replace(old, new)))


def badly_signed(one: Certificate) -> Certificate:
    """The certificate with one bit of its signature turned."""
    return altered(one, one.der[-8:], one.der[-8:-1] + bytes((one.der[-1] ^ 1,)))


def with_chain(one: Certificate, *chain: Authority) -> Certificate:
    """The certificate with this above it, whoever signed it."""
    return replace(one, chain=tuple(authority.certificate for authority in chain))


def certificate_message(*entries: bytes) -> bytes:
    """The message of TLS 1.2 with these certificates (RFC 5246 section 7.4.2)."""
    listed = b"".join(len(one).to_bytes(3, "big") + one for one in entries)
    body = len(listed).to_bytes(3, "big") + listed
    return bytes((CERTIFICATE,)) + len(body).to_bytes(3, "big") + body


class Relay:
    """Between a client of TLS 1.2 and a server; puts what ``message`` makes of the client's certificate message in its place.
    A context manager.
    """

    def __init__(self, port: int, message: Callable[[bytes], bytes]) -> None:
        self.target = port
        self.message = message
        self.changed = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> Relay:
        self._start(self._one)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _one(self) -> None:
        """Serve one client."""
        try:
            client, _ = self._listening.accept()
        except OSError:
            return
        with client, socket.create_connection(("127.0.0.1", self.target), timeout=10) as server:
            client.settimeout(10)
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            with suppress(OSError, EOFError):
                while True:
                    server.sendall(self._record(client))
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join(10)

    def _record(self, client: socket.socket) -> bytes:
        """The client's next record, as it goes on."""
        head = _exactly(client, 5)
        body = _exactly(client, int.from_bytes(head[3:], "big"))
        if head[0] != HANDSHAKE or body[0] != CERTIFICATE or self.changed:
            return head + body
        self.changed += 1
        body = self.message(body)
        return head[:3] + len(body).to_bytes(2, "big") + body


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = sock.recv(size - len(found))
        if not data:
            raise EOFError
        found += data
    return found


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
