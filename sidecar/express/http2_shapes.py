"""Shapes of requests that come by HTTP/2: what is the same in every request of a kind, by the names of its fields."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http2_head import Known, copy_head
from sidecar.core.head import Field, RequestHead
from sidecar.express.http2_binding import Binding, binding_of
from sidecar.express.learning import outcome_of
from sidecar.express.plan import Outcome, RequestShape
from sidecar.express.shape import MOST_VARYING, may_vary

_METHODS: Final = frozenset((b"GET", b"DELETE"))
_METHODS_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))
_NEVER: Final = frozenset(
    (b"expect", b"upgrade", b"connection", b"http2-settings", b"x-forwarded-client-cert", b"x-envoy-internal")
)

Values = Callable[[dict[bytes, bytes]], tuple[bytes, ...]]


def values_at(names: tuple[bytes, ...]) -> Values:
    """What gives the values of ``names`` in an index."""
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        (name,) = names
        return lambda index: (index[name],)
    return lambda index: ()


class Http2RequestShape(RequestShape):
    """``names`` are the open fields, in their order, and ``values_of(index)`` their values; ``end``: no body follows."""

    __slots__ = ("constant_names", "constants", "constants_of", "end", "names", "values_of")

    http2 = True

    def __init__(
        self, head: RequestHead, end: bool, names: tuple[bytes, ...], index: dict[bytes, bytes], outcome: Outcome
    ) -> None:
        super().__init__(head.method, head.authority, head.scheme, outcome)
        self.end = end
        self.names = names
        self.values_of = values_at(names)
        self.constant_names = tuple(name for name in index if name not in names)
        self.constants_of = values_at(self.constant_names)
        self.constants = (head.scheme, *self.constants_of(index))

    def fits(self, head: RequestHead) -> bool:
        """Whether a head with the names of this shape has its constants, too."""
        return (head.scheme, *self.constants_of(head.index)) == self.constants and len(head.fields) == len(head.index)

    def differing(self, head: RequestHead, known: int) -> set[bytes]:
        """The fields that ``head`` has other values of, if they may vary; ``known`` is how many are known to do so."""
        if known >= MOST_VARYING:
            return set()
        pairs = zip(self.constant_names, self.constants[1:], strict=True)
        return {name for name, value in pairs if head.index[name] != value and may_vary(name)}

    def bind(self, known: Known) -> None:
        """Let blocks that mean what is ``known`` be of this shape, if they leave nothing else open."""
        assert isinstance(known.head, RequestHead)
        known.shape = binding_of(known, self, known.head.path)


class Layout:
    """Where the path, the open fields and all others stand in the header lists of a shape, pseudo-header fields included.

    A list with these names and these constants needs no head to be made of it. ``accepts`` says of a path whether nothing has
    to be done to it.
    """

    __slots__ = ("accepts", "constants", "constants_of", "length_at", "path_at", "shape", "values_at")

    def __init__(self, shape: Http2RequestShape, fields: list[Field], accepts: Callable[[bytes], bool]) -> None:
        names = [name for name, _ in fields]
        self.shape = shape
        self.accepts = accepts
        self.path_at = names.index(b":path")
        self.values_at = tuple(names.index(name) for name in shape.names)
        self.length_at = names.index(b"content-length") if b"content-length" in names else -1
        places = [at for at in range(len(names)) if at != self.path_at and at not in self.values_at]
        self.constants_of = itemgetter(*places, places[0])
        self.constants = self.constants_of(fields)

    def forget_routes(self) -> None:
        """The routes are others now."""
        self.shape.forget_routes()

    def binding(self, fields: list[Field], holes: tuple[bytes, ...]) -> Binding | None:
        """The binding of blocks that mean these fields but for those called ``holes``; None if others may differ, too."""
        names = self.shape.names
        spots = [name for name in holes if name != b":path"]
        if b":path" in holes[1:] or not set(spots) <= set(names):
            return None
        base = [fields[at][1] for at in self.values_at]
        order = None if spots == list(names) else tuple(names.index(name) for name in spots)
        path = None if holes[:1] == (b":path",) else fields[self.path_at][1]
        return Binding(self.shape, path, base, order)


def layout_of(shape: Http2RequestShape, fields: list[Field], accepts: Callable[[bytes], bool]) -> Layout | None:
    """The layout of a header list that ``shape`` was found in; None if it was not taken as it is."""
    names = {name for name, _ in fields}
    if len(names) != len(fields) or b"host" in names or b":path" not in names:
        return None
    return Layout(shape, fields, accepts)


def http2_shape_of(
    manager: Any, info: Any, head: RequestHead, end: bool, names: tuple[bytes, ...]
) -> Http2RequestShape | None:
    """The shape of a request with this head, in which ``names`` are open; None if it is not plain."""
    if head.method not in (_METHODS if end else _METHODS_WITH_BODY) or not _NEVER.isdisjoint(head.index):
        return None
    trial = copy_head(head)
    assert type(trial) is RequestHead
    if manager.judge_http2 is not None:
        if any(b"_" in name for name in head.index):
            return None
        try:
            manager.judge_http2(trial)
        except ProtocolError:
            return None
    index = head.index
    outcome = outcome_of(manager, info, trial, names, b"\n".join(index.values()))
    if outcome is None or trial.authority != head.authority or trial.scheme != head.scheme:
        return None
    return Http2RequestShape(head, end, names, index, outcome)
