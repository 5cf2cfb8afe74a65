"""A workload's certificate for the control plane: traded for a join token, once, and renewed by itself."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controlplane.cli.api import Api, ApiError
from controlplane.nodeagent.identity_directory import (
    AGENT,
    BUNDLE,
    CHAIN,
    KEY,
    ROOT,
    SECRET,
    Renewing,
    pair_of,
    write_pair,
    write_private,
)
from controlplane.nodeagent.svid import identity_of, new_key, workload_of

_ROOM: Final = ".room"


def join(
    api: Api, token: str, directory: Path, *, lifetime: float | None = None, uids: tuple[int, ...] = ()
) -> tuple[Path, Path]:
    """Make a key in ``directory``, have it certified for the token, and return the paths of chain and key (PEM, 0600).

    The key never leaves this machine. What a node agent needs to renew it stands beside it: the control plane, the
    ``lifetime`` (seconds, None: as the control plane has it) and the user ids that may have the identity (none: the owner's).
    Raises ApiError if the token is used up, expired or unknown, or if nothing can be written there, before the token is
    spent.
    """
    body: dict[str, Any] = {"token": token}
    if lifetime is not None:
        body["lifetime"] = lifetime
    return _certify(api, "/mizzen/v1/join", body, directory, lifetime, uids)


def renew(api: Api, directory: Path) -> tuple[Path, Path]:
    """Likewise, with a new key, by the certificate that is in ``directory``, which must still be good."""
    api.show_certificate(*settled(directory))
    try:
        return _certify(api, "/mizzen/v1/renew", {}, directory)
    except ApiError as error:
        ended = what_ended(directory, api.access.server)
        if not ended:
            raise
        raise ApiError(error.status, f"{error.message}\n{ended}") from None


def what_ended(directory: Path, server: str) -> str:
    """That the certificate in ``directory`` has ended by this machine's clock, and what to do then; empty if it has not."""
    try:
        leaf = x509.load_pem_x509_certificates(settled(directory)[0].read_bytes())[0]
        names = workload_of(identity_of(leaf.public_bytes(serialization.Encoding.PEM)))
    except (ApiError, OSError, ValueError):
        return ""
    ends = leaf.not_valid_after_utc
    if ends > datetime.datetime.now(datetime.UTC):
        return ""
    return (
        f"the certificate in {directory} ended {ends:%Y-%m-%d %H:%M:%S} UTC by this machine's clock: "
        f"{Renewing(server, *names).joining_again(directory)}"
    )


def settled(directory: Path) -> tuple[Path, Path]:
    """The paths of chain and key, whether or not they are there. Whoever was killed while they were written may have left a
    chain without its key: both are then made what the one file says that has both. Raises ApiError.
    """
    chain_path, key_path, secret_path = directory / CHAIN, directory / KEY, directory / SECRET
    try:
        chain, key = pair_of(secret_path.read_bytes())
        for path, content in ((key_path, key), (chain_path, chain)):
            if not path.exists() or path.read_bytes() != content:
                write_private(path, content)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _failed(directory, error) from error
    except ValueError as error:
        raise ApiError(
            0, f"{secret_path} is not what mizzen has written: remove it to go on by {CHAIN} and {KEY}"
        ) from error
    return chain_path, key_path


def trusted_root(server: str, token: str) -> str:
    """The root of the control plane at ``server``, PEM: whoever answers there is asked, and believed if what they say has the
    hash that is in the token. Raises ApiError if not.
    """
    expected = token.rpartition("-")[2]
    answer = Api.to_anybody(server).request("GET", "/mizzen/v1/root")
    try:
        certificates = x509.load_pem_x509_certificates(answer["root"].encode())
    except (KeyError, ValueError, AttributeError) as error:
        raise ApiError(0, f"{server} is no control plane: it has no root certificate to tell") from error
    for certificate in certificates:  # more than one while one comes for another, and those that were before
        key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if hmac.compare_digest(hashlib.sha256(key).hexdigest().encode(), expected.encode()):
            return certificate.public_bytes(serialization.Encoding.PEM).decode()
    raise ApiError(0, f"{server} is not the control plane that the token is from: its root is another")


def _certify(
    api: Api,
    path: str,
    body: dict[str, Any],
    directory: Path,
    lifetime: float | None = None,
    uids: tuple[int, ...] = (),
) -> tuple[Path, Path]:
    key, request = new_key()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A token serves once: there must be room for what it is traded for.
        write_private(directory / _ROOM, bytes(1 << 15))
        (directory / _ROOM).unlink()
        answer = api.request("POST", path, {**body, "certificateSigningRequest": request})
        chain = answer["certificateChain"].encode()
        write_private(directory / ROOT, _roots(api))
        if "token" in body:
            (directory / BUNDLE).unlink(missing_ok=True)  # it may be of another mesh
            renewing = Renewing(api.access.server, *workload_of(identity_of(chain)), lifetime, uids or None)
            write_private(directory / AGENT, renewing.document())
        write_pair(directory, chain, key)
    except OSError as error:
        raise _failed(directory, error) from error
    except ValueError as error:
        raise ApiError(0, f"{api.access.server} has answered with what is no certificate for us: {error}") from error
    return directory / CHAIN, directory / KEY


def _roots(api: Api) -> bytes:
    """What the mesh believes now, which may be more than the root by which the control plane is known."""
    roots: str = api.request("GET", "/mizzen/v1/trust-bundle")["roots"]
    return roots.encode()


def _failed(directory: Path, error: OSError) -> ApiError:
    return ApiError(0, f"{directory}: a certificate cannot be kept there: {error.strerror or error}")
