"""HTTP/2 heads: from decoded fields to a head with its length, and back to a block (RFC 9113 section 8, RFC 8441).

Which names a message has, and in which order, hardly ever changes, so that they are judged once: ``_REQUESTS``,
``_RESPONSES`` and ``_TRAILERS`` remember what was found, bounded. Values that matter are looked at every time.

An extended CONNECT becomes what HTTP/1.1 says instead, a GET with Upgrade, as in Envoy; so filters and routes see one
kind of upgrade, and the codecs of both sides translate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from sidecar.codec.hpack_encoder import PATH, HpackEncoder
from sidecar.codec.http2_frames import LEAST_MAX_FRAME_SIZE
from sidecar.codec.wire import Field, decimal, is_authority, is_token
from sidecar.core.characters import only
from sidecar.core.head import RequestHead, ResponseHead, index_of

NO_LENGTH: Final = -1
"""The length of a message without Content-Length."""

INVALID_FIELD: Final = "http2.invalid.header.field"
VIOLATION: Final = "http2.violation.of.messaging.rule"
WRONG_LENGTH: Final = "http2.wrong_length"
"""Data that disagree with Content-Length: as in Envoy, that ends the stream and never the connection."""

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*")
_PATH: Final = only(bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)))
_REQUEST_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority", b":protocol"))
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_USUAL_METHODS: Final = frozenset(b"GET HEAD POST PUT DELETE OPTIONS PATCH".split())
_USUAL_SCHEMES: Final = frozenset((b"http", b"https"))
_STATUSES: Final = {b"%d" % status: status for status in range(100, 1000) if status != 101}
_AUTHORITY: Final = frozenset((b":authority", b"host"))
_ONCE: Final = frozenset((b"content-length", b"host"))
_MOST_SHAPES: Final = 1024

# What is known of a list of names: how many pseudo-header fields it begins with, and these.
_PSEUDO: Final = 7
_HOST: Final = 8
_LENGTH: Final = 16
_TE: Final = 32
_UNUSUAL: Final = 64  # not the four pseudo-header fields, or three of them, that most requests have

_AUTHORITIES: Final[set[bytes]] = set()
_MOST_AUTHORITIES: Final = 256
_LONGEST_AUTHORITY: Final = 128

Spots = tuple[tuple[int, bytes], ...]

_Names = tuple[bytes, ...]
_REQUESTS: Final[dict[_Names, int]] = {}
_RESPONSES: Final[dict[_Names, int]] = {}
_TRAILERS: Final[dict[_Names, int]] = {}

_new_request = RequestHead.__new__
_new_response = ResponseHead.__new__


class Malformed(Exception):
    """A message that breaks the rules of section 8.1.1; ``details`` is Envoy's response detail."""

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


def _judge_regular(names: _Names, first: int) -> int:
    """What the names of regular fields, from ``first`` on, say. Raises Malformed."""
    plan = first
    for name in names[first:]:
        if _NAME.fullmatch(name) is None:
            raise Malformed(INVALID_FIELD)
        if name in _CONNECTION_SPECIFIC:
            raise Malformed(INVALID_FIELD)
    if b"content-length" in names:
        plan |= _LENGTH
    if b"te" in names:
        plan |= _TE
    return plan


def _judge_request(names: _Names) -> int:
    pseudo = 0
    while pseudo < len(names) and names[pseudo][:1] == b":":
        if names[pseudo] not in _REQUEST_PSEUDO:
            raise Malformed(INVALID_FIELD)
        pseudo += 1
    plan = _judge_regular(names, pseudo)
    if b"host" in names:
        plan |= _HOST
    if b":method" not in names:
        raise Malformed(VIOLATION)
    if b":scheme" not in names or b":path" not in names or b":protocol" in names:
        plan |= _UNUSUAL
    return plan


def _judge_response(names: _Names) -> int:
    if names[:1] != (b":status",):
        raise Malformed(VIOLATION)
    return _judge_regular(names, 1)


def _judge_trailers(names: _Names) -> int:
    return _judge_regular(names, 0)


def _shape(seen: dict[_Names, int], names: _Names, judge: Callable[[_Names], int]) -> int:
    plan = seen.get(names)
    if plan is None:
        plan = judge(names)
        if len(names) <= 64:
            if len(seen) >= _MOST_SHAPES:
                seen.clear()
            seen[names] = plan
    return plan


def _merged(fields: list[Field]) -> list[Field]:
    """``fields``, where names occur more than once, with the crumbs of Cookie joined (section 8.2.3)."""
    seen = set()
    for name, _ in fields:
        if name in seen and (name in _ONCE or name[:1] == b":"):
            raise Malformed(INVALID_FIELD)
        seen.add(name)
    crumbs = [value for name, value in fields if name == b"cookie"]
    if len(crumbs) > 1:
        at = next(at for at, field in enumerate(fields) if field[0] == b"cookie")
        rest = [field for field in fields[at:] if field[0] != b"cookie"]
        return [*fields[:at], (b"cookie", b"; ".join(filter(None, crumbs))), *rest]
    return fields


def _check_values(fields: list[Field]) -> None:
    for _, value in fields:
        if _VALUE.fullmatch(value) is None:
            raise Malformed(INVALID_FIELD)


def request_head(fields: list[Field], suspicious: bool, extended_connect: bool) -> tuple[RequestHead, int]:
    """The head that ``fields`` make, and its Content-Length or NO_LENGTH.

    ``suspicious``: values have to be checked; ``extended_connect``: we have offered it. Raises Malformed.
    """
    if suspicious:
        _check_values(fields)
    index = dict(fields)
    count = len(fields)
    if len(index) != count:
        fields = _merged(fields)
        index = index_of(fields)
    names = tuple(index)
    plan = _REQUESTS.get(names)
    if plan is None:
        plan = _shape(_REQUESTS, names, _judge_request)
    regular = fields[plan & _PSEUDO :]
    method = index.pop(b":method")
    authority = index.pop(b":authority", b"")
    if plan & _HOST:
        host = index.pop(b"host")
        regular = [field for field in regular if field[0] != b"host"]
        authority = authority or host
    if plan & _UNUSUAL or method == b"CONNECT":
        method, scheme, path, regular = _connect(method, authority, index, regular, extended_connect)
    else:
        scheme = index.pop(b":scheme")
        path = index.pop(b":path")
        if (not path or path[0] != 0x2F) and not (path == b"*" and method == b"OPTIONS"):
            raise Malformed(VIOLATION if path else INVALID_FIELD)
        if not authority:
            raise Malformed(INVALID_FIELD if any(name in _AUTHORITY for name, _ in fields) else VIOLATION)
    if path.translate(_PATH) != path or (authority not in _AUTHORITIES and not _is_authority(authority)):
        raise Malformed(INVALID_FIELD)
    if method not in _USUAL_METHODS and not is_token(method):
        raise Malformed(INVALID_FIELD)
    if scheme not in _USUAL_SCHEMES:
        if not _SCHEME.fullmatch(scheme):
            raise Malformed(INVALID_FIELD)
        scheme = scheme.lower()
    length = _length(index, plan) if plan & (_LENGTH | _TE) else NO_LENGTH
    head = _new_request(RequestHead)
    head.method = method
    head.path = path
    head.authority = authority
    head.scheme = scheme
    head.version = 20
    head.fields = regular
    head.index = index
    head.names = None
    return head, length


def _is_authority(authority: bytes) -> bool:
    """As ``is_authority``, without userinfo, and remembers the good ones."""
    if not is_authority(authority) or b"@" in authority:  # section 8.3.1: no userinfo
        return False
    if len(authority) <= _LONGEST_AUTHORITY:
        if len(_AUTHORITIES) >= _MOST_AUTHORITIES:
            _AUTHORITIES.clear()
        _AUTHORITIES.add(authority)
    return True


def _length(index: dict[bytes, bytes], plan: int) -> int:
    """Check TE, and read Content-Length."""
    if plan & _TE and index[b"te"].lower() != b"trailers":
        raise Malformed(INVALID_FIELD)
    if not plan & _LENGTH:
        return NO_LENGTH
    length = decimal(index[b"content-length"])
    if length is None:
        raise Malformed(INVALID_FIELD)
    return length


def _connect(
    method: bytes, authority: bytes, index: dict[bytes, bytes], fields: list[Field], extended_connect: bool
) -> tuple[bytes, bytes, bytes, list[Field]]:
    """(method, scheme, path, fields) of a CONNECT (section 8.5) or an extended one (RFC 8441 section 4)."""
    scheme = index.pop(b":scheme", None)
    path = index.pop(b":path", None)
    protocol = index.pop(b":protocol", None)
    if protocol is not None and not (extended_connect and is_token(protocol)):
        raise Malformed(INVALID_FIELD)
    if method != b"CONNECT" or not authority:
        raise Malformed(VIOLATION)
    if protocol is None:
        if scheme is not None or path is not None:
            raise Malformed(VIOLATION)
        return method, b"http", b"", fields
    if scheme is None or not path:
        raise Malformed(VIOLATION)
    upgrade = [(b"upgrade", protocol), (b"connection", b"upgrade")]
    index.update(upgrade)
    return b"GET", scheme, path, [*fields, *upgrade]


def response_head(fields: list[Field], suspicious: bool) -> tuple[ResponseHead, int]:
    """The head that ``fields`` make, and its Content-Length or NO_LENGTH. Raises Malformed."""
    if suspicious:
        _check_values(fields)
    index = dict(fields)
    if len(index) != len(fields):
        fields = _merged(fields)
        index = index_of(fields)
    names = tuple(index)
    plan = _RESPONSES.get(names)
    if plan is None:
        plan = _shape(_RESPONSES, names, _judge_response)
    status = _STATUSES.get(index.pop(b":status"))
    if status is None:
        raise Malformed(INVALID_FIELD)
    length = _length(index, plan & ~_TE) if plan & _LENGTH else NO_LENGTH
    head = _new_response(ResponseHead)
    head.status = status
    head.version = 20
    head.reason = b""
    head.fields = fields[1:]
    head.index = index
    head.names = None
    return head, length


def check_trailers(fields: list[Field], suspicious: bool) -> bool:
    """Whether Content-Length is among them. Raises Malformed for what no trailer section may have (section 8.1)."""
    plan = _shape(_TRAILERS, tuple([name for name, _ in fields]), _judge_trailers)
    if suspicious:
        _check_values(fields)
    return plan & _LENGTH != 0


class Known:
    """What a header block means, in some or all of its connection's blocks: a head, and the length of what follows.

    ``spots`` are the fields that differ from block to block, as in ``Pattern``, and ``values`` what was there in the one
    that this was made of. ``shape`` is for the connection's owner: what it has made of such heads. ``bodiless`` says that none
    of them promises data; ``data`` is what the frame begins with that has all of it, -1 if there may be no such frame.
    """

    __slots__ = ("bodiless", "data", "head", "length", "length_at", "path_at", "shape", "spots", "values")

    def __init__(self, head: RequestHead | ResponseHead, length: int, spots: Spots, values: list[bytes]) -> None:
        self.head = head
        self.length = length
        self.spots = spots
        self.values = values
        self.shape: Any = None
        names = [name for _, name in spots]
        self.path_at = names.index(b":path") if b":path" in names else -1
        self.length_at = names.index(b"content-length") if b"content-length" in names else -1
        self.bodiless = self.length_at < 0 and length <= 0
        self.data = length << 8 if self.length_at < 0 and 0 < length <= LEAST_MAX_FRAME_SIZE else -1

    def admits(self, values: list[bytes]) -> bool:
        """Whether values that stand at the spots in another block are such that nothing else has to be looked at."""
        path_at, length_at = self.path_at, self.length_at
        return (path_at < 0 or values[path_at][:1] == b"/") and (
            length_at < 0 or decimal(values[length_at]) is not None
        )

    def filled(self, values: list[bytes]) -> Any:
        """The head with these values."""
        head: Any = copy_head(self.head)
        if values is not self.values:
            for (at, name), value in zip(self.spots, values, strict=True):
                if at < 0:
                    head.path = value
                else:
                    head.fields[at] = (name, value)
                    head.index[name] = value
        return head

    def __repr__(self) -> str:
        return f"<Known {self.head!r}, {len(self.spots)} spots>"


def copy_head(head: RequestHead | ResponseHead) -> RequestHead | ResponseHead:
    """An independent copy, without making the index again."""
    copy: RequestHead | ResponseHead
    if type(head) is ResponseHead:
        copy = _new_response(ResponseHead)
        copy.status = head.status
        copy.reason = b""
    else:
        assert type(head) is RequestHead
        copy = _new_request(RequestHead)
        copy.method = head.method
        copy.path = head.path
        copy.authority = head.authority
        copy.scheme = head.scheme
    copy.version = 20
    copy.fields = head.fields.copy()
    copy.index = head.index.copy()
    copy.names = None
    return copy


def request_block(encoder: HpackEncoder, head: RequestHead, extended_connect: bool) -> bytes:
    """The header block of a request; ``extended_connect``: as which an upgrade is to be sent."""
    start = encoder.begin() if encoder.updates else b""
    method = head.method
    if extended_connect or method == b"CONNECT":
        pieces = [start, encoder[(b":method", b"CONNECT")]]
    else:
        pieces = [start, encoder[(b":method", method)]]
    if method != b"CONNECT":
        path = head.path
        pieces.append(encoder[(b":scheme", head.scheme)])
        pieces.append(PATH[len(path)] + path if len(path) < 128 else encoder[(b":path", path)])
    if head.authority:
        pieces.append(encoder[(b":authority", head.authority)])
    if extended_connect:
        pieces.append(encoder[(b":protocol", head.index[b"upgrade"])])
    pieces += map(encoder.__getitem__, head.fields)
    return b"".join(pieces)


_STATUS_FIELDS: Final = {status: (b":status", b"%d" % status) for status in range(100, 1000)}


def response_block(encoder: HpackEncoder, head: ResponseHead) -> bytes:
    """The header block of a response; 101 becomes 200, since what was upgraded here was an extended CONNECT."""
    start = encoder.begin() if encoder.updates else b""
    status = head.status
    pieces = [start, encoder[_STATUS_FIELDS[status if status != 101 else 200]]]
    pieces += map(encoder.__getitem__, head.fields)
    return b"".join(pieces)
