"""Holding requests until they are complete: `extensions.filters.http.buffer.v3.Buffer`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.buffer.v3.Buffer"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Requests of more than `max_request_bytes` get 413; None: the filter is switched off here."""

    max_request_bytes: int | None


def parse_buffer(node: Node) -> Buffer:
    """`Buffer`."""
    return Buffer(node.wrapped("max_request_bytes", None))


def parse_buffer_per_route(node: Node) -> Buffer:
    """`BufferPerRoute`."""
    node.get("disabled")
    override = node.child("buffer")
    return Buffer(None) if override is None else parse_buffer(override)
