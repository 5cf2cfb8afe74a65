"""The lane of requests that come by HTTP/2: what their shapes are, and the way up for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidecar.codec.hpack_table import VOLATILE
from sidecar.core.head import Field, RequestHead
from sidecar.express.forward import compile_forward
from sidecar.express.http2_shapes import Http2RequestShape, http2_shape_of, layout_of
from sidecar.express.response import compile_response_lane

_NEVER_OPEN: Final = frozenset((b":path", b"x-forwarded-for", b"x-envoy-upstream-service-time"))
_OPEN: Final = VOLATILE - _NEVER_OPEN


class Http2Lane:
    """One connection manager's; ``lane`` is that of all its clients, and has what they share."""

    __slots__ = ("forward", "lane")

    def __init__(
        self,
        lane: Any,
        router: Any,
        make_upstream_request: Callable[..., Any],
        new_request_id: Callable[[int], bytes],
        date_of: Callable[[int], bytes],
    ) -> None:
        self.lane = lane
        respond = compile_response_lane(lane.manager, router, date_of, True)
        self.forward = compile_forward(lane, router, make_upstream_request, new_request_id, respond, lane.answers, True)

    def recognise(self, connection: Any, head: RequestHead, end: bool) -> Http2RequestShape | None:
        """The shape of a request that came by HTTP/2, if it is plain; found out now if it is new."""
        lane = self.lane
        kind = connection.kind
        index = head.index
        key = (head.method, head.authority, end, *index)
        shape: Http2RequestShape | None = kind.get(key)
        if shape is not None:
            if shape.fits(head):
                return shape
            lane.volatile |= shape.differing(head, len(lane.volatile))
        if len(index) != len(head.fields):
            return None
        kind = lane.kind_to_learn(connection)
        if kind is None:
            return None
        connection.codec.layouts = kind
        names = tuple([name for name in index if name in lane.volatile or name in _OPEN])
        shape = http2_shape_of(lane.manager, connection.info, head, end, names)
        if shape is not None:
            lane.keep(kind, key, shape)
        return shape

    def lay_out(self, kind: dict[Any, Any], fields: list[Field], shape: Http2RequestShape) -> None:
        """Let header lists such as ``fields``, in which ``shape`` was found, be recognised before a head is made of them."""
        lane = self.lane
        layout = layout_of(shape, fields, lane.accepts)
        if layout is not None:
            lane.keep(kind, (shape.end, *[name for name, _ in fields]), layout)

    def __repr__(self) -> str:
        return "<Http2Lane>"
