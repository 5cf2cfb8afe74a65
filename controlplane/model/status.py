"""The `status` of resources, which anybody may have written: read so that no content of it can hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def status_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """A resource's status; empty where there is none, or what there is is no object."""
    status = document.get("status")
    return dict(status) if isinstance(status, Mapping) else {}


def conditions_of(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its conditions, those that are any."""
    found = status.get("conditions")
    return [dict(one) for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []
