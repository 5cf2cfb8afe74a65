"""The one canonical form of a path, made before routing and authorisation, and what goes upstream.

Source: Envoy's ``normalize_path``, ``merge_slashes`` and ``path_with_escaped_slashes_action``; RFC 3986 section 6.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.core.head import RequestHead

if TYPE_CHECKING:
    from sidecar.http.stream import Stream

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH: Final = re.compile(rb"%2[Ff]|%5[Cc]")
_UNSAFE: Final = re.compile(rb'["<>^`{|}]')  # URLs may not have them
_SLASHES: Final = re.compile(rb"/{2,}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Normalize = Callable[["Stream", RequestHead], bool]


def compile_path_normalization(config: HttpConnectionManager) -> Normalize | None:
    """The normalisation that ``config`` asks for, None for none. It answers True if it replied to the request."""
    action = config.path_with_escaped_slashes_action
    normalize, merge = config.normalize_path, config.merge_slashes
    if not normalize and not merge and action == "KEEP_UNCHANGED":
        return None

    def apply(stream: Stream, request: RequestHead) -> bool:
        path, mark, query = request.path.partition(b"?")
        before = path
        redirect = False
        if action != "KEEP_UNCHANGED" and b"%" in path and _ESCAPED_SLASH.search(path):
            path = _ESCAPED_SLASH.sub(lambda escape: b"/" if escape[0] in (b"%2F", b"%2f") else b"\\", path)
            if action == "REJECT_REQUEST":
                request.path = path + mark + query
                stream.manager.stats.downstream_rq_failed_path_normalization += 1
                return stream.refuse(400, b"", "path_normalization_failed")
            redirect = action == "UNESCAPE_AND_REDIRECT"
        if normalize:
            canonical = canonical_path(path)
            if canonical is None:
                stream.manager.stats.downstream_rq_failed_path_normalization += 1
                return stream.refuse(400, b"", "path_normalization_failed")
            path = canonical
        if merge:
            path = _SLASHES.sub(b"/", path)
        if path != before:
            request.path = path + mark + query
            if redirect:
                stream.manager.stats.downstream_rq_redirected_with_normalized_path += 1
                return stream.reply(307, details="path_normalization_failed", headers=((b"location", request.path),))
        return False

    return apply


def canonical_path(path: bytes) -> bytes | None:
    """``path`` with dot segments resolved, backslashes turned, unreserved characters unescaped; None if it cannot be."""
    if b"\\" in path:
        path = path.replace(b"\\", b"/")
    if b"%" in path:
        if b"%00" in path:
            return None
        path = _ESCAPE.sub(_unescape, path)
    if _UNSAFE.search(path):
        path = _UNSAFE.sub(lambda unsafe: b"%%%02X" % unsafe[0][0], path)
    if b"/." in path:
        path = _without_dots(path)
    return path


def _unescape(escape: re.Match[bytes]) -> bytes:
    code = int(escape[1], 16)
    return bytes((code,)) if code in _UNRESERVED else escape[0]


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment[:1] == b"." and b";" in segment:
            name = segment.partition(b";")[0]
            if name in (b".", b".."):  # its parameters do not make it another segment
                segment = name
        if segment == b".":
            if last:
                kept.append(b"")
        elif segment == b"..":
            if kept:
                kept.pop()
            if last:
                kept.append(b"")
        else:
            kept.append(segment)
    return b"/" + b"/".join(kept)
