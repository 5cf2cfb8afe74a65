"""How to reach a control plane: from the kubeconfig that it wrote."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

FILE: Final = "admin.kubeconfig"
ENVIRONMENT: Final = "MIZZEN_KUBECONFIG"


@dataclass(frozen=True, slots=True)
class Access:
    """A control plane's address (an https:// URL), the certificate authority that it is known by (PEM), and a token."""

    server: str
    authority: str
    token: str
    namespace: str = "default"


def default_data_dir() -> Path:
    """Where a control plane keeps its data if it is not told: `$XDG_STATE_HOME/mizzen`, `~/.local/state/mizzen`."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "mizzen"


def find_access(data_dir: str | None = None, kubeconfig: str | None = None) -> Access:
    """By `--kubeconfig`, `--data-dir`, `$MIZZEN_KUBECONFIG`, or the default data directory (a demo's, if there is none else);
    the first that is given.

    Raises click.ClickException that says where it looked.
    """
    if kubeconfig is not None:
        path = Path(kubeconfig)
    elif data_dir is not None:
        path = Path(data_dir) / FILE
    elif ENVIRONMENT in os.environ:
        path = Path(os.environ[ENVIRONMENT])
    else:
        path = default_data_dir() / FILE
        if not path.exists() and (demo := default_data_dir() / "demo" / FILE).exists():
            path = demo
    try:
        text = path.read_text()
    except OSError as error:
        raise click.ClickException(
            f"{path}: {error.strerror}. Start a control plane (python -m controlplane --data-dir DIR), and name its "
            f"directory with --data-dir, or its {FILE} with --kubeconfig or {ENVIRONMENT}"
        ) from None
    try:
        return _parse(yaml.safe_load(text))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise click.ClickException(f"{path}: not a kubeconfig: {error}") from error


def kubeconfig_text(access: Access, user: str) -> str:
    """A kubeconfig that leads there."""
    cluster = {
        "server": access.server,
        "certificate-authority-data": base64.b64encode(access.authority.encode()).decode(),
    }
    context = {"cluster": "mizzen", "user": user, "namespace": access.namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mizzen", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": access.token}}],
        "contexts": [{"name": "mizzen", "context": context}],
        "current-context": "mizzen",
    }
    return yaml.safe_dump(document, sort_keys=False)


def _parse(config: Mapping[str, Any]) -> Access:
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    if "certificate-authority-data" in cluster:
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    else:
        authority = Path(cluster["certificate-authority"]).read_text()
    return Access(cluster["server"], authority, user.get("token", ""), context.get("namespace", "default"))


def _named(entries: list[Any], name: str) -> Any:
    return next(one for one in entries if one["name"] == name)
