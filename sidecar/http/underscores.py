"""Request fields with underscores in their names, which some hosts take for hyphens.

Source: Envoy's ``HttpProtocolOptions.headers_with_underscores_action``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.core.head import RequestHead


def compile_underscores(action: str, stats: Any) -> Callable[[RequestHead], None] | None:
    """What is done to a request's head: None for ALLOW; REJECT_REQUEST raises ProtocolError."""
    if action == "ALLOW":
        return None

    def drop(head: RequestHead) -> None:
        names = [name for name in head.index if b"_" in name]
        if names:
            stats.dropped_headers_with_underscores += len(names)
            head.remove_all(names)

    def reject(head: RequestHead) -> None:
        if any(b"_" in name for name in head.index):
            stats.requests_rejected_with_underscores_in_headers += 1
            raise ProtocolError("http1.unexpected_underscore")

    return drop if action == "DROP_HEADER" else reject
