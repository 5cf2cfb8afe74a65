"""The directory in which a workload's identity outlives reboots: written by `mizzen join` and at each renewal.

`chain.pem`, `key.pem` and `root.pem`; `secret.json`, which has chain and key in one file, so that they are always of one
another; `agent.json`, how it is renewed and who may have it; `bundle.json`, the last trust bundle. All are 0600.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

CHAIN: Final = "chain.pem"
KEY: Final = "key.pem"
ROOT: Final = "root.pem"
SECRET: Final = "secret.json"
AGENT: Final = "agent.json"
BUNDLE: Final = "bundle.json"

SECRET_NAME: Final = "workload"
"""What the workload's certificate and key are called where its proxy watches `secret.json`."""

_LARGEST: Final = 4 << 20  # bytes of one file
_AGENT_FIELDS: Final = {"server", "namespace", "serviceAccount", "lifetime", "uid"}


class BadIdentity(ValueError):
    """Files of an identity that are missing or wrong; the message has the path and what to do."""


@dataclass(frozen=True, slots=True)
class Renewing:
    """`agent.json`: the control plane that renews, for whom, for how long (seconds, None: as the control plane has it), and
    the user ids that may have the identity (None: that of the directory's owner, and root).
    """

    server: str
    namespace: str
    service_account: str
    lifetime: float | None = None
    uids: tuple[int, ...] | None = None

    def joining_again(self, directory: Path) -> str:
        """What a person types for another certificate when the last has ended, which nothing renews."""
        return (
            f"a certificate that has ended is not renewed: join again by a new token, which `mizzen token create --namespace "
            f"{self.namespace} --service-account {self.service_account}` makes where the control plane is, and here: "
            f"mizzen join --server {self.server} --token TOKEN --identity-dir {directory}"
        )

    def document(self) -> bytes:
        """The file."""
        found: dict[str, Any] = {
            "server": self.server,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
        }
        if self.lifetime is not None:
            found["lifetime"] = self.lifetime
        if self.uids is not None:
            found["uid"] = list(self.uids)
        return json.dumps(found).encode()


def read_renewing(directory: Path, *, server: str = "") -> Renewing:
    """`agent.json` of a directory NAMESPACE/ACCOUNT; without that file, the names are the directory's and the control plane is
    ``server``. Raises BadIdentity.
    """
    path = directory / AGENT
    try:
        document = json.loads(_read(path))
    except BadIdentity:
        raise
    except FileNotFoundError:
        if not server:
            raise BadIdentity(
                f"{path} is missing, so nobody knows the control plane that renews: give --server, or join again"
            ) from None
        document = {"server": server}
    except OSError as error:
        raise BadIdentity(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadIdentity(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadIdentity(f"{path}: must be an object")
    for field in document:
        if field not in _AGENT_FIELDS:
            raise BadIdentity(f"{path}: {field}: is not known: use {', '.join(sorted(_AGENT_FIELDS))}")
    found = Renewing(
        _text(path, document, "server", server),
        _text(path, document, "namespace", directory.parent.name),
        _text(path, document, "serviceAccount", directory.name),
        _lifetime(path, document.get("lifetime")),
        _uids(path, document.get("uid")),
    )
    if urlsplit(found.server).scheme != "https" or not urlsplit(found.server).hostname:
        raise BadIdentity(f"{path}: server: must be a URL such as https://10.0.0.1:15080, not {found.server!r}")
    for field, name, here in (
        ("namespace", found.namespace, directory.parent.name),
        ("serviceAccount", found.service_account, directory.name),
    ):
        if name != here:
            raise BadIdentity(f"{path}: {field}: is {name!r}, but the directory is {here!r}: rename one of them")
    return found


def _text(path: Path, document: Mapping[str, Any], field: str, default: str) -> str:
    value = document.get(field, default)
    if not isinstance(value, str) or not value:
        raise BadIdentity(f"{path}: {field}: must be a text that is not empty")
    return value


def _lifetime(path: Path, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 90 * 86400:
        raise BadIdentity(f"{path}: lifetime: must be a number of seconds from 1 to {90 * 86400}, not {value!r}")
    return float(value)


def _uids(path: Path, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(type(one) is int and 0 <= one < 2**32 - 1 for one in value):
        raise BadIdentity(f"{path}: uid: must be a list of one or more user ids, such as [1000], not {value!r}")
    return tuple(dict.fromkeys(value))


def read_pair(directory: Path) -> tuple[bytes, bytes]:
    """Certificate chain and key, PEM, of one another even if whoever wrote them was killed meanwhile. Raises BadIdentity."""
    try:
        return pair_of(_read(directory / SECRET))
    except BadIdentity:
        raise
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadIdentity(f"{directory / SECRET}: {error.strerror or error}") from error
    except ValueError:
        raise BadIdentity(
            f"{directory / SECRET} is not what mizzen has written: remove it to go on by {CHAIN} and {KEY}"
        ) from None
    try:
        return _read(directory / CHAIN), _read(directory / KEY)
    except OSError as error:
        raise BadIdentity(f"{error.filename}: {error.strerror or error}") from error


def pair_of(secret: bytes) -> tuple[bytes, bytes]:
    """Chain and key of a `secret.json`. Raises ValueError."""
    try:
        pair = json.loads(secret)["resources"][0]["tls_certificate"]
        chain, key = pair["certificate_chain"]["inline_string"], pair["private_key"]["inline_string"]
        return chain.encode(), key.encode()
    except (LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a secret") from None


def write_pair(directory: Path, chain: bytes, key: bytes) -> None:
    """Keep both: whatever happens on the way, `read_pair` finds the old ones or these. Raises OSError."""
    # This one first: from it the others are made right if we are killed between them.
    write_private(directory / SECRET, secret_document(chain, key))
    write_private(directory / KEY, key)
    write_private(directory / CHAIN, chain)


def secret_document(chain: bytes, key: bytes) -> bytes:
    """Both as a proxy watches them (`DiscoveryResponse` of SDS)."""
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": SECRET_NAME,
        "tls_certificate": {
            "certificate_chain": {"inline_string": chain.decode()},
            "private_key": {"inline_string": key.decode()},
        },
    }
    return json.dumps({"resources": [secret]}).encode()


def read_file(path: Path) -> bytes | None:
    """A file of an identity, None if it is not there. Raises BadIdentity."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadIdentity(f"{path}: {error.strerror or error}") from error


def _read(path: Path) -> bytes:
    # The directory is its workload's, and the agent is everybody's: what is no file must not keep it waiting.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadIdentity(f"{path}: is not a regular file: remove it")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise BadIdentity(f"{path}: is larger than {_LARGEST} bytes")
    return content


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone reads: whole or not at all, even if the machine stops."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of one who was killed, or a FIFO, at which we would wait
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
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
