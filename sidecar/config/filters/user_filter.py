"""Filters that users write in Python: a TypedStruct whose type URL ends in `mizzen.filters.NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.config.extensions import type_name_of
from sidecar.config.fields import Node

PREFIX = "mizzen.filters."


@dataclass(frozen=True, slots=True)
class UserFilter:
    """`name` is an entry point of the group `mizzen.filters`; `config` is what the TypedStruct's value says."""

    name: str
    config: Mapping[str, Any]


def parse_user_filter(node: Node) -> UserFilter | None:
    """A TypedStruct; one that is no user filter is refused, and None."""
    type_url = node.get("type_url")
    type_name = type_name_of(type_url)
    if not type_name.startswith(PREFIX) or type_name == PREFIX:
        node.refuse(
            f"the type {type_url!r} is not known",
            "type_url",
            f"write type.googleapis.com/{PREFIX}NAME for a filter of your own",
        )
        return None
    return UserFilter(type_name.removeprefix(PREFIX), node.struct("value") or {})
