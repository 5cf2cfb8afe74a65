"""A workload's certificate for the control plane: traded for a join token, once."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.cli.api import Api


def join(api: Api, token: str, directory: Path) -> tuple[Path, Path]:
    """Make a key in ``directory``, have it certified for the token, and return the paths of chain and key (PEM, 0600).

    The key never leaves this machine. Raises ApiError if the token is used up, expired or unknown.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    answer = api.request("POST", "/mizzen/v1/join", {"token": token, "certificateSigningRequest": csr})
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    chain_path, key_path = directory / "chain.pem", directory / "key.pem"
    _write(chain_path, answer["certificateChain"].encode())
    _write(
        key_path,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return chain_path, key_path


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
