"""What a route changes of a request's path and host before it goes upstream.

Source: Envoy's ``RouteAction`` reference (``prefix_rewrite``, ``regex_rewrite``, ``host_rewrite_*``,
``append_x_forwarded_host``) and the HTTP header reference (``x-envoy-original-path``, ``x-envoy-original-host``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config.matcher import RegexMatchAndSubstitute
from sidecar.config.route_action import RouteAction
from sidecar.config.route_match import RouteMatch
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_substitution, path_only
from sidecar.router.header_mutation import CompileFormat, compile_value
from sidecar.router.route import Rewrite

NewPath = Callable[[bytes], bytes]
"""From a request target to the one that takes its place, the query kept."""


def set_host(request: RequestHead, host: bytes, append_x_forwarded_host: bool, keep_original: bool) -> None:
    """Replace the host; the old one goes to ``x-forwarded-host`` and ``x-envoy-original-host`` where asked."""
    old = request.authority
    if old:
        if append_x_forwarded_host:
            forwarded = request.index.get(b"x-forwarded-host")
            if not forwarded:
                request.set(b"x-forwarded-host", old)
            elif forwarded.split(b",")[-1] != old:
                request.set(b"x-forwarded-host", forwarded + b"," + old)
        if keep_original:
            request.set(b"x-envoy-original-host", old)
    request.authority = host


def compile_prefix_rewrite(match: RouteMatch, rewrite: bytes) -> NewPath:
    """Put ``rewrite`` in the place of what the route matched: the whole path for expressions."""
    if match.path_specifier in ("safe_regex", "connect_matcher"):
        return lambda target: rewrite + target[len(path_only(target)) :]
    matched = len(match.path)
    return lambda target: rewrite + target[matched:]


def compile_regex_rewrite(rewrite: RegexMatchAndSubstitute) -> NewPath:
    """Substitute in the path, the query left as it is."""
    substitute = compile_substitution(rewrite)

    def new_path(target: bytes) -> bytes:
        path = path_only(target)
        return substitute(path) + target[len(path) :]

    return new_path


def set_path(request: RequestHead, path: bytes, keep_original: bool) -> None:
    """Replace the request's target; the old one goes to ``x-envoy-original-path`` where asked."""
    if keep_original:
        request.set(b"x-envoy-original-path", request.path)
    request.path = path


def compile_rewrite(
    match: RouteMatch, action: RouteAction, compile_format: CompileFormat, keep_original: bool
) -> Rewrite | None:
    """Everything that the route rewrites, host first, or None when that is nothing.

    ``auto_host_rewrite`` is not among it: that waits for the upstream host, and is a call of ``set_host`` then.
    ``keep_original`` is False where the router suppresses Envoy's headers.
    """
    host = _compile_host(action, compile_format)
    append = action.append_x_forwarded_host
    new_path: NewPath | None = None
    if action.prefix_rewrite:
        new_path = compile_prefix_rewrite(match, action.prefix_rewrite)
    elif action.regex_rewrite is not None:
        new_path = compile_regex_rewrite(action.regex_rewrite)
    if host is None and new_path is None:
        return None
    if host is None:
        assert new_path is not None
        path_alone = new_path
        return lambda request, stream: set_path(request, path_alone(request.path), keep_original)

    def rewrite(request: RequestHead, stream: Any) -> None:
        name = host(request, stream)
        if name:
            set_host(request, name, append, keep_original)
        if new_path is not None:
            set_path(request, new_path(request.path), keep_original)

    return rewrite


def _compile_host(
    action: RouteAction, compile_format: CompileFormat
) -> Callable[[RequestHead, Any], bytes | None] | None:
    if action.host_rewrite_literal:
        literal = action.host_rewrite_literal
        return lambda request, stream: literal
    if action.host_rewrite_header:
        header = action.host_rewrite_header

        def from_header(request: RequestHead, stream: Any) -> bytes | None:
            values = request.get_all(header)
            return values[0] if values else None

        return from_header
    if action.host_rewrite_path_regex is not None:
        substitute = compile_substitution(action.host_rewrite_path_regex)
        return lambda request, stream: substitute(path_only(request.path))
    if action.host_rewrite:
        value = compile_value(action.host_rewrite, compile_format)
        if isinstance(value, bytes):
            constant = value
            return lambda request, stream: constant
        render = value
        return lambda request, stream: render(stream)
    return None
