"""Changes of single headers, as ``config.common.mutation_rules.v3.HeaderMutation`` has them, ready to be applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.header_mutation import HeaderChange, RemoveHeader
from sidecar.core.head import Head
from sidecar.core.matching import compile_string

JOINED = frozenset(
    b"accept accept-encoding authorization cache-control connection content-encoding content-length content-type date"
    b" etag expect grpc-message grpc-status grpc-timeout keep-alive location origin proxy-connection server te"
    b" transfer-encoding upgrade user-agent vary via x-forwarded-for x-forwarded-host x-forwarded-port"
    b" x-forwarded-proto x-request-id".split()
)
"""Fields that stand once in a head for Envoy: what is appended to them joins their value, behind a comma."""

ChangeHead = Callable[[Head, Any], None]
"""Changes a head; the stream is for formats."""


def compile_header_changes(
    changes: Iterable[HeaderChange], compile_addition: Callable[[HeaderValueOption], ChangeHead | None]
) -> tuple[ChangeHead, ...]:
    """The changes in their order; ``compile_addition`` makes those that add a header, or None for one that never does."""
    steps = (_compile(change, compile_addition) for change in changes)
    return tuple(step for step in steps if step is not None)


def _compile(
    change: HeaderChange, compile_addition: Callable[[HeaderValueOption], ChangeHead | None]
) -> ChangeHead | None:
    if isinstance(change, HeaderValueOption):
        return compile_addition(change)
    if isinstance(change, RemoveHeader):
        name = change.name

        def remove(head: Head, stream: Any) -> None:
            if name in head.index:
                head.remove(name)

        return remove
    matches = compile_string(change.key_matcher)
    return lambda head, stream: head.remove_all([name for name in head.index if matches(name)])
