"""What serves again: the stream and the upstream request of an exchange that stayed plain, for the next of its kind."""

from __future__ import annotations

from typing import Any, Final

_MOST: Final = 256
"""As many are kept for each shape, and for each plan."""

_NOTHING: Final[dict[bytes, bytes]] = {}


def as_new(stream: Any) -> None:
    """Let a stream that has served before say no more of it, where another way than the lane's goes on with it."""
    stream.attempt_count = stream.upstream_connection_id = 0
    stream.upstream_first_tx = stream.upstream_last_tx = 0.0
    stream.upstream_local_address = stream.upstream_tls = None


def put_away(request: Any) -> None:
    """An upstream request will serve another stream than the one that it served, or none."""
    request.stream = None
    idle = request.plan.idle
    if len(idle) < _MOST:
        idle.append(request)


def set_free(stream: Any) -> None:
    """A stream that was kept will serve another connection than the one that it served, or none."""
    stream.downstream = stream.connection = None
    shape = stream.shape
    if len(shape.idle) < _MOST and stream.request.eager is shape.indexed:
        shape.idle.append(stream)
    else:
        request, stream.upstream = stream.upstream, None
        put_away(request)


def keep(request: Any, stream: Any, connected: bool = False) -> bool:
    """Keep both objects together, unless something out of the ordinary may still hold them; they forget whom they served.

    Everything that neither ``forward`` nor ``as_new`` sets anew is set back here, whichever way the response took. A stream that
    is not kept is over; one that is kept never was, for its next request. With ``connected`` the stream stays with its
    connection, which has to keep it; the answer is whether there is something to keep.
    """
    request.upstream = None
    if stream.attempt_count != 1 or request.abandoned:
        stream.upstream = None
        stream.response_ended = stream.over = True
        return False
    head = request.head
    if head is not None:
        head.made_fields = head.made_index = None
        head.values = ()  # secrets are among them
    request.host = request.trailers = None
    request.head_passed = False
    if request.body is not None:
        request.body = None
    shape = stream.shape
    requested = stream.request
    if not requested.eager and requested.made_index is not None:
        shape.want_index()
    if requested.eager is not shape.indexed or requested.made_fields is not None:
        stream.upstream = None
        stream.response_ended = stream.over = True
        put_away(request)
        return False
    stream.host = None
    stream.request_trailers = stream.response_trailers = None
    if stream.response is not None:  # it has been written down what became of it
        stream.response = None
        stream.response_code = stream.bytes_sent = stream.response_head_size = 0
        stream.upstream_head_received = stream.upstream_bytes_received = 0
        stream.response_code_details = ""
        stream.upstream_first_rx = stream.upstream_last_rx = stream.downstream_first_tx = stream.end = 0.0
    requested.values = ()
    if shape.indexed:
        requested.index = _NOTHING
    else:
        requested.made_index = _NOTHING
    if not connected:
        stream.downstream = stream.connection = None
        if len(shape.idle) < _MOST:
            shape.idle.append(stream)
        else:
            stream.upstream = None
            put_away(request)
    return True
