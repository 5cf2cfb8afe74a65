"""HTTPS at saturation: TLS 1.3 in, plain HTTP/1.1 out, connections kept alive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from benchmarks.cells.http import measure
from benchmarks.context import Context
from benchmarks.results import CPU, Row, Target

SPEED = Target("≥ 1.4 × Envoy", times_envoy=1.4)


def https_in(context: Context) -> list[Row]:
    """As `route-bare`, over TLS from the client to the proxy."""
    _write_certificate(context.directory)
    return measure(context, "https-in", "https_in", None, "/", CPU, SPEED, "https")


def _write_certificate(directory: Path) -> None:
    """`server.pem` and `server.key`, as `https_in.yaml` names them: P-256, signed by itself, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
