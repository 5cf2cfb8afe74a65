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
    stream.upstream_version = 11


def keep(request: Any, stream: Any) -> None:
    """Keep both objects, unless something out of the ordinary may still hold them; they forget whom they served.

    Everything that neither ``forward`` nor ``as_new`` sets anew is set back here, whichever way the response took. A stream that
    is not kept is over; one that is kept never was, for its next request.
    """
    plan = request.plan
    stream.upstream = request.upstream = None
    if stream.attempt_count != 1 or request.abandoned or len(plan.idle) >= _MOST:
        stream.response_ended = stream.over = True
        return
    head = request.head
    if head is not None:
        head.made_fields = head.made_index = None
        head.values = ()  # secrets are among them
    request.host = request.stream = request.trailers = None
    request.head_passed = False
    if request.body is not None:
        request.body = None
    plan.idle.append(request)
    shape = stream.shape
    requested = stream.request
    if not requested.eager and requested.made_index is not None:
        shape.want_index()
    if requested.eager is shape.indexed and requested.made_fields is None and len(shape.idle) < _MOST:
        stream.downstream = stream.connection = stream.host = None
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
        shape.idle.append(stream)
    else:
        stream.response_ended = stream.over = True
