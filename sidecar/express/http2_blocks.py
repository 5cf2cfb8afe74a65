"""Header blocks of HTTP/2 for heads of a known shape: on each connection they are made once, with places for the values.

The octets that stand for a field depend on the connection's table, and change only when that does (``encoder.epoch``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sidecar.codec.hpack_encoder import HpackEncoder, open_field
from sidecar.codec.hpack_table import integer
from sidecar.codec.http2_frames import LARGEST_STREAM_ID
from sidecar.core.head import Field
from sidecar.express.heads import Template
from sidecar.express.plan import SKIPPED
from sidecar.express.shape import literal

_MOST_RENDERS: Final = 256
_LONGEST: Final = 16384
_LENGTHS: Final = tuple(integer(0, 127, length) for length in range(8192))
_SHORT_LENGTHS: Final = _LENGTHS[:512]
_LONGEST_CONSTANT: Final = _LONGEST - 2 * (len(_SHORT_LENGTHS) + len(_SHORT_LENGTHS[-1]))
"""Octets that leave room for two short values."""

Renders = dict[Any, tuple[int, bytes]]
"""For plans or shapes of responses: what to fill in on a connection, and the epoch in which that is right."""


def request_block(plan: Any, connection: Any, path: bytes, values: Sequence[bytes]) -> bytes | None:
    """The block of a request on a pool's connection; None if it is not to be had so simply, or there is no room for it."""
    codec = connection.codec
    encoder: HpackEncoder = codec.encoder
    known = connection.renders.get(plan)
    if known is None or known[0] != encoder.epoch:
        method, authority, scheme, _ = plan.head
        first = ((b":method", method), (b":path", b""), (b":scheme", scheme), (b":authority", authority))
        known = _render(connection.renders, plan, encoder, first, plan.template)
        if known is None:
            return None
    if len(codec.streams) >= codec.peer_max_streams or codec.next_id > LARGEST_STREAM_ID:
        return None
    if len(values) == 1:
        (value,) = values
        render: bytes = known[1]
        try:
            return render % (_SHORT_LENGTHS[len(path)], path, _SHORT_LENGTHS[len(value)], value)
        except IndexError:
            pass  # one is long: the block has to be measured
    return filled(known[1], (path, *values))


def response_block(shape: Any, connection: Any, values: Sequence[bytes]) -> bytes | None:
    """The block of a response on a client's connection; None if it is not to be had so simply."""
    encoder: HpackEncoder = connection.codec.encoder
    known = connection.renders.get(shape)
    if known is None or known[0] != encoder.epoch:
        known = _render(connection.renders, shape, encoder, ((b":status", b"%d" % shape.status),), shape.template)
        if known is None:
            return None
    return filled(known[1], values)


def filled(render: bytes, values: Sequence[bytes]) -> bytes | None:
    """A block with these values in their places; None if it would be too long for one frame."""
    try:
        if len(values) == 2:
            first, second = values
            return render % (_SHORT_LENGTHS[len(first)], first, _SHORT_LENGTHS[len(second)], second)
    except IndexError:
        pass  # one is long: the block has to be measured
    pieces: list[bytes] = []
    try:
        for value in values:
            pieces += (_LENGTHS[len(value)], value)
    except IndexError:
        return None
    block = render % tuple(pieces)
    return block if len(block) <= _LONGEST else None


def _render(
    renders: Renders, key: Any, encoder: HpackEncoder, first: Sequence[Field], template: Template
) -> tuple[int, bytes] | None:
    """What to fill in, remembered in ``renders``; None while a field is about to enter the table."""
    if encoder.updates:
        return None
    places = {at for at, _, _ in template.open}
    pieces = []
    for name, value in first:
        coded = b"\x04%b%b" if name == b":path" else encoder.settled((name, value))
        if coded is None:
            return None
        pieces.append(coded if name == b":path" else literal(coded))
    before, after = template.skips()
    for at, field in enumerate(template.fields):
        if at in places:
            pieces.append(SKIPPED * 2 * before.get(at, 0) + literal(open_field(field[0])) + b"%b%b")
            continue
        coded = encoder.settled(field)
        if coded is None:
            return None
        pieces.append(literal(coded))
    pieces.append(SKIPPED * 2 * after)
    if sum(map(len, pieces)) > _LONGEST_CONSTANT:
        return None
    if len(renders) >= _MOST_RENDERS:
        renders.clear()
    known = renders[key] = (encoder.epoch, b"".join(pieces))
    return known
