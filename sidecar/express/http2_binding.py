"""What ties a header block that is known to a shape: how the values that the block leaves open become those of the shape."""

from __future__ import annotations

from typing import Any

from sidecar.codec.http2_head import Known


class Binding:
    """``values(found)`` are the open values of ``shape``, in its order, if ``found`` stand at the block's spots.

    A block may leave less open than the shape does: where an encoder has indexed what varies, say. ``path`` is the path that
    all of its requests have, None if it is open, too.
    """

    __slots__ = ("base", "order", "path", "shape")

    def __init__(self, shape: Any, path: bytes | None, base: list[bytes], order: tuple[int, ...] | None) -> None:
        self.shape = shape
        self.path = path
        self.base = base
        self.order = order

    def values(self, found: list[bytes]) -> list[bytes]:
        order = self.order
        if order is None:
            return found if self.path is not None else found[1:]
        if not order:
            return self.base
        values = self.base.copy()
        if self.path is None:
            found = found[1:]
        for at, value in zip(order, found, strict=True):
            values[at] = value
        return values


def binding_of(known: Known, shape: Any, path: bytes) -> Binding | None:
    """The binding of a block of which ``shape`` was found; None if it leaves open what the shape does not.

    ``path`` is that of the block's head, empty for responses.
    """
    spots = [name for at, name in known.spots if at >= 0]
    names = list(shape.names)
    if known.path_at > 0 or not set(spots) <= set(names):
        return None
    base = list(shape.values_of(known.head.index))
    order = None if spots == names else tuple(names.index(name) for name in spots)
    return Binding(shape, path if known.path_at < 0 else None, base, order)
