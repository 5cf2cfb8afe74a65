"""The file by which kubectl and `mizzen` reach the control plane: its address, the CA to trust, the token."""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path
from typing import Any

import yaml

from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.tokens import Tokens
from controlplane.model.credentials import Role, Unauthenticated


async def keep_admin_kubeconfig(path: Path, server: str, tokens: Tokens, authority: CertificateAuthority) -> None:
    """Write `DIR/admin.kubeconfig` (0600) for the API at ``server`` ("https://127.0.0.1:15080").

    The token in a file that is there is kept as long as the store knows it, so that copies of the file stay good.
    """
    token = _token_of(path)
    if token is not None:
        try:
            await tokens.identify(token)
        except Unauthenticated:
            token = None
    if token is None:
        _, token = await tokens.issue(Role.ADMIN, "admin")
    write_kubeconfig(path, server, token, authority.pem)


def write_kubeconfig(path: Path, server: str, token: str, ca: bytes, user: str = "admin") -> None:
    """Write a kubeconfig, readable by its owner alone, whole or not at all."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "mizzen",
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "mizzen", "context": {"cluster": "mizzen", "user": user, "namespace": "default"}}],
        "current-context": "mizzen",
    }
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        yaml.safe_dump(document, file, sort_keys=False)
        file.flush()
        os.fsync(descriptor)
    part.replace(path)


def _token_of(path: Path) -> str | None:
    with contextlib.suppress(OSError, yaml.YAMLError, LookupError, TypeError):
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        token = document["users"][0]["user"]["token"]
        if isinstance(token, str) and token.startswith("mizzen-admin-"):
            return token
    return None
