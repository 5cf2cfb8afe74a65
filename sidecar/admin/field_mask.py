"""Which fields of a dump are wanted: `google.protobuf.FieldMask` as a tree."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Mask: TypeAlias = dict[str, Any]
"""The wanted fields by name, each with what is wanted of it; an empty mask wants everything."""

ALL: Final[Mask] = {}


def parse_mask(text: str) -> Mask:
    """The mask of `a.b,c`: a path that covers another one wins."""
    root: Mask = {}
    covered: set[int] = set()
    for path in sorted(filter(None, text.split(",")), key=lambda path: path.count(".")):
        at = root
        for name in path.split("."):
            if id(at) in covered:
                break
            at = at.setdefault(name, {})
        else:
            covered.add(id(at))
    return root


def fits(mask: Mask, descriptor: Any, inside_any: dict[str, Any] | None = None) -> bool:
    """Whether all paths of `mask` name fields of the message; only the last of a path may be a repeated field.

    `inside_any` has, by the name of an Any field of this message, the descriptor of what is in it.
    """
    for name, inner in mask.items():
        field = descriptor.fields_by_name.get(name)
        if field is None:
            return False
        if inner:
            if field.is_repeated or field.message_type is None:
                return False
            if not fits(inner, (inside_any or {}).get(name, field.message_type)):
                return False
    return True
