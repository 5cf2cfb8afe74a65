"""`Headers` of a route or a destination: what is set, added and removed, in requests and in responses.

Source: Istio's reference, "Virtual Service", Headers.
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2

_HOST = ("host", ":authority")


def apply_headers(headers: Any, made: Any) -> None:
    """Put the operations into ``made``, a `Route` or a `ClusterWeight`: both have Envoy's four lists.

    What is said of `host` in a request is not among them: see `authority`.
    """
    if headers is None:
        return
    if headers.request is not None:
        made.request_headers_to_add.extend(_options(headers.request))
        made.request_headers_to_remove.extend(name for name in headers.request.remove if name.lower() not in _HOST)
    if headers.response is not None:
        made.response_headers_to_add.extend(_options(headers.response))
        made.response_headers_to_remove.extend(headers.response.remove)


def authority(headers: Any) -> str:
    """What `host` or `:authority` of a request is set to, or empty: Envoy changes it by a rewrite, not by its lists."""
    if headers is None or headers.request is None:
        return ""
    for operations in (headers.request.set, headers.request.add):
        for name, value in operations.items():
            if name.lower() in _HOST:
                return str(value)
    return ""


def _options(operations: Any) -> list[Any]:
    option = base_pb2.HeaderValueOption
    made = []
    for action, values in (
        (option.OVERWRITE_IF_EXISTS_OR_ADD, operations.set),
        (option.APPEND_IF_EXISTS_OR_ADD, operations.add),
    ):
        for name, value in sorted(values.items()):
            if name.lower() not in _HOST:
                made.append(option(header=base_pb2.HeaderValue(key=name, value=value), append_action=action))
    return made
