"""A request that goes through everything again on its way to another place: an internal redirect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.core.head import Field, RequestHead
from sidecar.http.forwarding import compile_host_stripping
from sidecar.http.path_normalization import compile_path_normalization


def compile_repreparation(config: HttpConnectionManager) -> Callable[[Any], bool]:
    """The preparation of such requests, as ``compile_forwarding`` makes it for others.

    Path and host are what another server wrote. All the rest was found out of the request as it came: as in Envoy, it
    stays.
    """
    normalize = compile_path_normalization(config)
    strip_host = compile_host_stripping(config)

    def prepare(stream: Any) -> bool:
        request = stream.request
        if normalize is not None and normalize(stream, request):
            return True
        if strip_host is not None:
            strip_host(stream, request)
        return False

    return prepare


def begin_again(stream: Any, body: bytes, trailers: list[Field] | None) -> None:
    """End ``stream`` without a response, and let another one carry its request, which now says where it is to go.

    ``body`` and ``trailers`` are all that belongs to the request.
    """
    downstream = stream.downstream
    request: RequestHead = stream.request
    again = type(stream)(downstream, stream.manager, request.copy(), stream.now)
    again.remote_address = stream.remote_address
    again.request_id = stream.request_id
    again.filter_state = stream.filter_state
    again.request_head_size = stream.request_head_size
    again.bytes_received = stream.bytes_received
    stream.superseded()
    downstream.stream = again
    downstream.now = stream.now
    again.begin(not body and trailers is None, stream.manager.prepare_again)
    if body and not again.over:
        again.on_data(body, trailers is None)
    if trailers is not None and not again.over:
        again.on_trailers(trailers)
