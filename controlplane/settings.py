"""What a control plane is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

API_ADDRESS: Final = "127.0.0.1:15080"
XDS_ADDRESS: Final = "127.0.0.1:15010"
SECURE_XDS_ADDRESS: Final = "127.0.0.1:15012"


class InvalidSetting(ValueError):
    """An option that cannot be; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses are (host, port), None for none; ``store`` is a URL, empty for the embedded store in ``data_dir``.

    ``directories`` are watched for resource files. ``mesh_config`` is a file with the mesh's configuration.
    ``names`` are DNS names and addresses by which others know this control
    plane, for its certificates. ``quiet`` and ``longest`` are the seconds for which changes are gathered before they are
    pushed; ``grace`` is how long a workload whose stream has ended stays in the mesh. ``workload_lifetime`` is how many seconds
    a workload's certificate lives unless its request says otherwise, ``longest_workload_lifetime`` how many it may ask for.
    ``ca_key_type`` ("ecdsa", "rsa") is of a root that is made at the first start; ``ca_directory`` has an operator's own
    authority instead. Keys at rest are sealed with ``ca_passphrase``, or with what ``ca_passphrase_file`` says.
    ``token_review`` is a kubeconfig, or "in-cluster", of the API server that judges Kubernetes service-account tokens.
    """

    data_dir: Path
    api: tuple[str, int]
    xds: tuple[str, int] | None
    secure_xds: tuple[str, int] | None
    store: str = ""
    directories: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    mesh_config: Path | None = None
    trust_domain: str = "cluster.local"
    mesh_domain: str = "cluster.local"
    quiet: float = 0.01
    longest: float = 0.3
    grace: float = 10.0
    workload_lifetime: float = 86400.0
    longest_workload_lifetime: float = 90 * 86400.0
    ca_key_type: str = "ecdsa"
    ca_directory: Path | None = None
    ca_passphrase_file: Path | None = None
    token_review: str = ""
    ca_passphrase: str = field(default="", repr=False)


def parse_address(text: str, option: str) -> tuple[str, int] | None:
    """`HOST:PORT`, port 0 for any; None for an empty text. Raises InvalidSetting."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidSetting(f"{option}: {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
