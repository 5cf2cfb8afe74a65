"""Documents of all kinds, from their specs."""

from __future__ import annotations

from typing import Any

import yaml

from controlplane.model.kinds import KINDS


def document(kind: str, body: str, name: str = "it", namespace: str = "shop") -> dict[str, Any]:
    """A document of a kind, with the body (its `spec`, where it has one) in YAML."""
    described = KINDS[kind]
    metadata = {"name": name} | ({"namespace": namespace} if described.namespaced else {})
    made: dict[str, Any] = {"apiVersion": described.api_version, "kind": kind, "metadata": metadata}
    content = yaml.safe_load(body)
    return made | ({"spec": content} if described.has_spec else content)
