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
_ROOM: Final = ".room"


def join(api: Api, token: str, directory: Path) -> tuple[Path, Path]:
    """Make a key in ``directory``, have it certified for the token, and return the paths of chain and key (PEM, 0600).

    The key never leaves this machine. Raises ApiError if the token is used up, expired or unknown, or if nothing can be
    written there, before the token is spent.
    """
    return _certify(api, "/mizzen/v1/join", {"token": token}, directory)


def renew(api: Api, directory: Path) -> tuple[Path, Path]:
    """Likewise, with a new key, by the certificate that is in ``directory``, which must still be good."""
    api.show_certificate(*settled(directory))
    return _certify(api, "/mizzen/v1/renew", {}, directory)


def settled(directory: Path) -> tuple[Path, Path]:
    """The paths of chain and key, whether or not they are there. Whoever was killed while they were written may have left a
    chain without its key: both are then made what the one file says that has both. Raises ApiError.
    """
    chain_path, key_path, secret_path = directory / CHAIN, directory / KEY, directory / SECRET
    try:
        pair = json.loads(secret_path.read_bytes())["resources"][0]["tls_certificate"]
        chain, key = pair["certificate_chain"]["inline_string"], pair["private_key"]["inline_string"]
        for path, content in ((key_path, key.encode()), (chain_path, chain.encode())):
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _failed(directory, error) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ApiError(
            0, f"{secret_path} is not what mizzen has written: remove it to go on by {CHAIN} and {KEY}"
        ) from error
    return chain_path, key_path


async def keep_renewed(server: str, root: str, directory: Path) -> None:
    """Renew the certificate in ``directory`` whenever two thirds of what is left of its life are over, until cancelled. A
    sidecar reads the files again when they change. What fails is said, and tried again within a minute.
    """
    renewed = True
    while True:
        left = _seconds_left(directory)
        await asyncio.sleep(max(1.0, left * 2 / 3 if renewed else min(60.0, left / 10)))
        api = Api(Access(server, root, ""))
        try:
            await asyncio.to_thread(renew, api, directory)
            renewed = True
        except Exception as error:  # whatever it is: nobody else would try again
            message = error.message if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
            click.echo(f"the certificate in {directory} is not renewed: {message}", err=True)
            renewed = False
        finally:
            api.close()


def _seconds_left(directory: Path) -> float:
    """Of the certificate's life; ten minutes, so that it is looked at every minute, if it cannot be read or is over."""
    try:
        certificate = x509.load_pem_x509_certificates((directory / CHAIN).read_bytes())[0]
    except (OSError, ValueError):
        return 600.0
    left = (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).total_seconds()
    return left if left > 0 else 600.0


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
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain_path, key_path = directory / CHAIN, directory / KEY
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A token serves once: there must be room for what it is traded for.
        write_private(directory / _ROOM, bytes(1 << 15))
        (directory / _ROOM).unlink()
        answer = api.request("POST", path, {**body, "certificateSigningRequest": csr})
        chain = answer["certificateChain"]
        if api.access.authority:
            write_private(directory / ROOT, api.access.authority.encode())
        # This one first: from it the others are made right if we are killed between them.
        write_private(directory / SECRET, _secret(chain, private.decode()))
        write_private(key_path, private)
        write_private(chain_path, chain.encode())
    except OSError as error:
        raise _failed(directory, error) from error
    return chain_path, key_path


def _failed(directory: Path, error: OSError) -> ApiError:
    return ApiError(0, f"{directory}: a certificate cannot be kept there: {error.strerror or error}")


def _secret(chain: str, key: str) -> bytes:
    """Both as a proxy watches them (`DiscoveryResponse` of SDS): in one file, so that they are always of one another."""
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": SECRET_NAME,
        "tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}},
    }
    return json.dumps({"resources": [secret]}).encode()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone reads: whole or not at all, even if the machine stops."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
