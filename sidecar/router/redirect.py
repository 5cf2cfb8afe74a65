"""Redirects: where a request is sent instead.

Source: Envoy's ``RedirectAction`` reference, and ``VirtualHost.require_tls``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config.route_action import RedirectAction
from sidecar.config.route_match import RouteMatch
from sidecar.core.head import RequestHead
from sidecar.router.rewrite import NewPath, compile_prefix_rewrite, compile_regex_rewrite, set_path

Redirect = Callable[[RequestHead, Any], tuple[int, bytes]]


def forwarded_proto(request: RequestHead) -> bytes:
    """The scheme that the client used, as far as is known: ``x-forwarded-proto``, or that of the request."""
    return request.index.get(b"x-forwarded-proto") or request.scheme


def _host_and_port(authority: bytes) -> tuple[bytes, bytes]:
    """The host and its port with the colon, which is empty when there is none."""
    at = authority.rfind(b"]:") + 1 if authority[:1] == b"[" else authority.rfind(b":")
    if at < 1:
        return authority, b""
    return authority[:at], authority[at:]


def _request_host(request: RequestHead, scheme: bytes, new_port: bytes) -> bytes:
    host, port = _host_and_port(request.authority)
    if not port:
        return host
    if new_port:
        return host
    used = forwarded_proto(request)
    if scheme != used and ((used == b"https" and port == b":443") or (used == b"http" and port == b":80")):
        return host
    return request.authority


def compile_redirect(match: RouteMatch, action: RedirectAction, keep_original: bool) -> Redirect:
    """(request, stream) to (status, location). A path rewrite is made in the request as well, for the logs.

    ``keep_original`` is False where the router suppresses Envoy's headers.
    """
    status, scheme_redirect, host_redirect = action.response_code, action.scheme_redirect, action.host_redirect
    path_redirect, strip_query = action.path_redirect, action.strip_query
    has_query = b"?" in path_redirect
    new_port = b":%d" % action.port_redirect if action.port_redirect else b""
    new_path: NewPath | None = None
    if action.prefix_rewrite:
        new_path = compile_prefix_rewrite(match, action.prefix_rewrite)
    elif action.regex_rewrite is not None:
        new_path = compile_regex_rewrite(action.regex_rewrite)

    def redirect(request: RequestHead, stream: Any) -> tuple[int, bytes]:
        if new_path is not None:
            set_path(request, new_path(request.path), keep_original)
        scheme = scheme_redirect or request.scheme
        host = host_redirect or _request_host(request, scheme, new_port)
        path = request.path
        if path_redirect:
            query = path.find(b"?")
            path = path_redirect if has_query or query < 0 else path_redirect + path[query:]
        if strip_query and not has_query:
            path = path.partition(b"?")[0]
        return status, b"%b://%b%b%b" % (scheme, host, new_port, path)

    return redirect


def redirect_to_tls(request: RequestHead, stream: Any) -> tuple[int, bytes]:
    """The same address over https, permanently: what ``require_tls`` answers."""
    return 301, b"https://%b%b" % (request.authority, request.path)
