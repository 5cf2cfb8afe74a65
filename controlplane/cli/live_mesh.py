"""The proxies that are connected to a control plane that runs, for `mizzen explain`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from controlplane.cli.options import connect


class LiveMesh:
    """Asks the control plane that the options lead to."""

    def __init__(self, data_dir: str | None, kubeconfig: str | None) -> None:
        self._api = connect(data_dir, kubeconfig)

    def named(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """See Mesh."""
        return self._asked(namespace=namespace, name=name)

    def at(self, address: str) -> list[dict[str, Any]]:
        """See Mesh."""
        return self._asked(address=address)

    def _asked(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.request("GET", f"/mizzen/v1/configurations?{urlencode(query)}")
        return found
