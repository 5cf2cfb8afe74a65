"""A workload's certificate for the control plane: traded for a join token, once, and renewed by itself."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Final

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.cli.api import Api, ApiError
from controlplane.cli.kubeconfig import Access
from controlplane.cli.workload import SECRET_NAME

CHAIN: Final = "chain.pem"
KEY: Final = "key.pem"
ROOT: Final = "root.pem"
SECRET: Final = "secret.json"


def join(api: Api, token: str, directory: Path) -> tuple[Path, Path]:
    """Make a key in ``directory``, have it certified for the token, and return the paths of chain and key (PEM, 0600).

    The key never leaves this machine. Raises ApiError if the token is used up, expired or unknown.
    """
    return _certify(api, "/mizzen/v1/join", {"token": token}, directory)


def renew(api: Api, directory: Path) -> tuple[Path, Path]:
    """Likewise, with a new key, by the certificate that is in ``directory``, which must still be good."""
    api.show_certificate(directory / CHAIN, directory / KEY)
    return _certify(api, "/mizzen/v1/renew", {}, directory)


async def keep_renewed(server: str, root: str, directory: Path) -> None:
    """Renew the certificate in ``directory`` whenever two thirds of what is left of its life are over, until cancelled. A
    sidecar reads the files again when they change.
    """
    while True:
        certificate = x509.load_pem_x509_certificates((directory / CHAIN).read_bytes())[0]
        left = (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).total_seconds()
        await asyncio.sleep(max(1.0, left * 2 / 3))
        api = Api(Access(server, root, ""))
        try:
            await asyncio.to_thread(renew, api, directory)
        except ApiError as error:
            click.echo(f"the certificate in {directory} is not renewed: {error.message}", err=True)
            await asyncio.sleep(min(60.0, max(1.0, left / 10)))
        finally:
            api.close()


def trusted_root(server: str, token: str) -> str:
    """The root of the control plane at ``server``, PEM: whoever answers there is asked, and believed if what they say has the
    hash that is in the token. Raises ApiError if not.
    """
    expected = token.rpartition("-")[2]
    answer = Api.to_anybody(server).request("GET", "/mizzen/v1/root")
    try:
        certificate = x509.load_pem_x509_certificate(answer["root"].encode())
    except (KeyError, ValueError, AttributeError) as error:
        raise ApiError(0, f"{server} is no control plane: it has no root certificate to tell") from error
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if not hmac.compare_digest(hashlib.sha256(key).hexdigest(), expected):
        raise ApiError(0, f"{server} is not the control plane that the token is from: its root is another")
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certify(api: Api, path: str, body: dict[str, str], directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    answer = api.request("POST", path, {**body, "certificateSigningRequest": csr})
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain_path, key_path = directory / CHAIN, directory / KEY
    write_private(chain_path, answer["certificateChain"].encode())
    write_private(key_path, private)
    write_private(directory / SECRET, _secret(answer["certificateChain"], private.decode()))
    return chain_path, key_path


def _secret(chain: str, key: str) -> bytes:
    """Both as a proxy watches them (`DiscoveryResponse` of SDS): in one file, so that they are always of one another."""
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": SECRET_NAME,
        "tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}},
    }
    return json.dumps({"resources": [secret]}).encode()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone reads: whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
    part.replace(path)
