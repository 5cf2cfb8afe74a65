"""What a key may be, in every store alike: some sort by the bytes of a joined key, where a space is the lowest."""

from __future__ import annotations

from controlplane.model.resource import ResourceKey


def check_key(key: ResourceKey) -> None:
    """Raises ValueError for a key that a store cannot keep."""
    if not key.kind or not key.name:
        raise ValueError(f"{key} has no kind or no name")
    for part in key:
        if any(character <= " " or character == "\x7f" for character in part):
            raise ValueError(f"{key!r}: kinds, namespaces and names have no white space and no control characters")
