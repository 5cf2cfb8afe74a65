"""HTTP/1 heads: from a block of lines to a head with its framing, and back (RFC 9112 sections 3 to 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from sidecar.codec.errors import ProtocolError
from sidecar.codec.wire import Field, FieldLines, decimal, is_authority, is_target
from sidecar.core.head import RequestHead, ResponseHead

NO_BODY: Final = 0
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
"""Framing of a message: a length in bytes, or one of these."""

_METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH BIND"
    b" REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK"
    b" UNLINK SOURCE".split()
)
VERSIONS: Final = {b"HTTP/1.1": 11, b"HTTP/1.0": 10}
HTTP_1_1_ONLY: Final = {b"HTTP/1.1": 11}
_OLD_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Payload Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    418: b"Unknown",
    422: b"Unprocessable Entity",
    451: b"Unknown",
    599: b"Last Unassigned Server Error Code",
}
"""As Envoy words them; the standard library's words change from one version to the next."""
_STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()}
_join_field = b": ".join


def parse_request_head(
    block: bytes,
    lines_seen: FieldLines,
    most_fields: int,
    versions: dict[bytes, int] = VERSIONS,
    absolute_urls: bool = True,
) -> tuple[RequestHead, int]:
    """The head in ``block`` (without the empty line at its end) and its framing.

    ``versions`` are those that are served; ``absolute_urls``: whether a target in absolute form is taken apart. Raises
    ProtocolError with the answer for a client: 400, 426 for a version that is not served, 431 for too many fields, 501
    for an unknown transfer coding.
    """
    lines = block.split(b"\r\n")
    try:
        method, target, version_text = lines.pop(0).split(b" ")
    except ValueError:
        raise _first_line_error(block) from None
    version = versions.get(version_text)
    named = scheme = None
    if version is None or method not in _METHODS or not is_target(target):
        if version is None or method != b"CONNECT" or not is_target(target):
            raise _first_line_error(block)
        if not _CONNECT_TARGET.fullmatch(target):
            raise ProtocolError("http1.invalid_url")
        named, target = target, b""
    elif target[:1] != b"/":
        named, target, scheme = _take_target(method, target, absolute_urls)
    if len(lines) > most_fields:
        raise ProtocolError("http1.too_many_headers", 431)
    try:
        fields = [lines_seen[line] for line in lines]
    except ValueError:
        raise ProtocolError(field_error(block)) from None
    head = RequestHead(method, target, b"", fields, version)
    index = head.index
    host = index.pop(b"host", None)
    if host is not None:
        if fields[0][0] == b"host" and len(fields) == len(index) + 1:
            del fields[0]
        else:
            count = len(fields)
            fields[:] = [pair for pair in fields if pair[0] != b"host"]
            if count - len(fields) != 1:
                raise ProtocolError("http1.invalid_host")
        if not is_authority(host):
            raise ProtocolError("http.invalid_authority")
        head.authority = host
    elif version == 11 and named is None:
        raise ProtocolError("missing_host_header", head=head)
    if named is not None:
        head.authority = named
        if scheme is not None:
            head.scheme = head.url_scheme = scheme
    coding = index.get(b"transfer-encoding")
    length_text = index.get(b"content-length")
    if coding is None:
        if length_text is None:
            return head, NO_BODY
        length = decimal(length_text)
        if length is None:
            raise ProtocolError("http1.codec_error")
        return head, length
    if length_text is not None:
        raise ProtocolError("http1.content_length_and_chunked_not_allowed")
    if head.version == 10:
        raise ProtocolError("http1.codec_error")
    if coding.lower() != b"chunked":
        raise ProtocolError("http1.invalid_transfer_encoding", 501)
    if head.method == b"CONNECT":
        raise ProtocolError("http1.transfer_encoding_not_allowed", 400)
    return head, CHUNKED


def _first_line_error(block: bytes) -> ProtocolError:
    """What is wrong with a request line, in Envoy's terms: an old version, a control character, or anything else."""
    line, _, _ = block.partition(b"\r\n")
    method, *rest = line.split(b" ")
    if (method in _METHODS or method == b"CONNECT") and len(rest) in (1, 2):
        if _CONTROL.search(rest[0]):
            return ProtocolError("http1.invalid_characters")
        if is_target(rest[0]) and (_OLD_VERSION.fullmatch(rest[1]) if len(rest) == 2 else rest[0][:1] in b"/*"):
            return ProtocolError("low_version", 426)
    return ProtocolError("http1.codec_error")


def field_error(block: bytes) -> str:
    """Envoy's word for what is wrong in a block of field lines."""
    return "http1.invalid_characters" if _CONTROL.search(block) else "http1.codec_error"


def _take_target(method: bytes, target: bytes, absolute_urls: bool) -> tuple[bytes | None, bytes, bytes | None]:
    """The authority, if there is one, the path, and the scheme, if there is one, of a target that is not in origin form
    (RFC 9112 section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return None, target, None
    scheme, mark, rest = target.partition(b"://")
    if not absolute_urls:
        return None, target, None
    if not mark:
        raise ProtocolError("http1.invalid_url" if target == b"*" else "http1.codec_error")
    scheme = scheme.lower()
    if scheme not in (b"http", b"https"):
        raise ProtocolError("http1.invalid_scheme")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0), default=len(rest))
    authority, path = rest[:cut].rpartition(b"@")[2], rest[cut:]
    if not _HOST_AND_PORT.fullmatch(authority):
        raise ProtocolError("http1.invalid_url")
    return authority, path if path[:1] == b"/" else b"/" + path, scheme


_HOST: Final = rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]++|\[[0-9A-Fa-f:.]++\])"
_PORT: Final = rb":(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST_AND_PORT: Final = re.compile(_HOST + b"(?:" + _PORT + b")?")
_CONNECT_TARGET: Final = re.compile(_HOST + _PORT)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def parse_response_head(
    block: bytes, lines_seen: FieldLines, most_fields: int, method: bytes
) -> tuple[ResponseHead, int]:
    """The head in ``block`` and the framing of a response to ``method``. Raises ProtocolError."""
    lines = block.split(b"\r\n")
    first = lines.pop(0)
    known = _STATUSES_SEEN.get(first)
    version, status, reason = _parse_status_line(first) if known is None else known
    if len(lines) > most_fields:
        raise ProtocolError("http1.too_many_headers")
    try:
        fields = [lines_seen[line] for line in lines]
    except ValueError:
        raise ProtocolError("http1.codec_error") from None
    head = ResponseHead(status, fields, version, reason)
    index = head.index
    coding = index.get(b"transfer-encoding")
    length_text = index.get(b"content-length")
    if coding is None and length_text is not None:
        if not length_text.isdigit() or len(length_text) > 18:
            raise ProtocolError("http1.codec_error")
        framing = int(length_text)
    elif coding is None:
        framing = UNTIL_CLOSE
    else:
        if length_text is not None:
            raise ProtocolError("http1.content_length_and_chunked_not_allowed")
        if coding.lower() != b"chunked":
            raise ProtocolError("http1.invalid_transfer_encoding")
        framing = CHUNKED
    if status < 200 or status == 204:  # RFC 9110 section 8.6, RFC 9112 section 6.1: they may have neither
        if coding is not None:
            raise ProtocolError("http1.transfer_encoding_not_allowed")
        if framing > 0:
            raise ProtocolError("http1.content_length_not_allowed")
        head.remove(b"content-length")
        framing = NO_BODY
    elif status == 304 or method == b"HEAD":
        framing = NO_BODY
    elif status < 300 and method == b"CONNECT":
        framing = NO_BODY  # whatever the fields say, a tunnel follows (RFC 9112 section 6.3)
    return head, framing


_STATUSES_SEEN: Final[dict[bytes, tuple[int, int, bytes]]] = {}


def _parse_status_line(line: bytes) -> tuple[int, int, bytes]:
    """(version, status, reason) of a status line (RFC 9112 section 4); the usual ones are remembered."""
    version = VERSIONS.get(line[:8])
    status = decimal(line[9:12])
    if version is None or status is None or status < 100 or len(line) < 12 or line[8] != 0x20:
        raise ProtocolError("http1.codec_error")
    if len(line) > 12 and (line[12] != 0x20 or b"\n" in line or b"\r" in line or b"\0" in line):
        raise ProtocolError("http1.codec_error")
    known = (version, status, line[13:])
    if len(_STATUSES_SEEN) < 256 and len(line) < 64:
        _STATUSES_SEEN[line] = known
    return known


def reason_phrase(status: int) -> bytes:
    """The words behind a status, as Envoy has them."""
    return _PHRASES.get(status, b"Unknown")


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` and its line end; a status without a registered phrase gets Envoy's ``Unknown``."""
    line = _STATUS_LINES.get(status)
    if line is None:
        line = b"HTTP/1.1 %d Unknown\r\n" % status
    return line


def render_fields(fields: list[Field]) -> bytes:
    """Fields as lines, and the empty line behind them."""
    if not fields:
        return b"\r\n"
    return b"\r\n".join(map(_join_field, fields)) + b"\r\n\r\n"


def proper_case(fields: Iterable[Field]) -> list[Field]:
    """``fields`` with the first letter of each word of their names in upper case (Envoy's ``proper_case_words``)."""
    return [(_proper_case(name), value) for name, value in fields]


def _proper_case(name: bytes) -> bytes:
    return b"-".join(word[:1].upper() + word[1:] for word in name.split(b"-"))


def spell(fields: Iterable[Field], names: dict[bytes, bytes]) -> list[Field]:
    """``fields`` with the names as the peer spelt them, where header case is kept."""
    return [(names.get(name, name), value) for name, value in fields]
