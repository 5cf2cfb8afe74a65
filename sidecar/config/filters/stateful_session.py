"""Requests of one session to one host: `extensions.filters.http.stateful_session.v3.StatefulSession`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"

_STATE = "envoy.extensions.http.stateful_session"
_COOKIE = f"{_STATE}.cookie.v3.CookieBasedSessionState"
_HEADER = f"{_STATE}.header.v3.HeaderBasedSessionState"

_NAMES = {_COOKIE: "envoy.http.stateful_session.cookie", _HEADER: "envoy.http.stateful_session.header"}
"""Envoy finds them by name, not by type."""


@dataclass(frozen=True, slots=True)
class CookieSessionState:
    """The host is in a cookie. `ttl` is in seconds, 0 for a cookie that ends with the client's session. Requests whose
    path is not below `path` are left alone; an empty one is above all.
    """

    name: bytes
    ttl: int = 0
    path: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderSessionState:
    """The host is in a header, of requests and of responses."""

    name: bytes


SessionState: TypeAlias = CookieSessionState | HeaderSessionState


@dataclass(frozen=True, slots=True)
class StatefulSession:
    """Without `session_state` there are no sessions. `strict`: a request whose host cannot be had fails. Only with a
    `stat_prefix` there are statistics.
    """

    session_state: SessionState | None = None
    strict: bool = False
    stat_prefix: str = ""


def parse_stateful_session(node: Node) -> StatefulSession:
    """`StatefulSession`."""
    typed = node.child("session_state")
    state = None if typed is None else typed.extension(known=tuple(_NAMES))
    if typed is not None and state is not None and typed.get("name") != _NAMES[state.type_name]:
        typed.refuse("is not the name of this session state", "name", f"write {_NAMES[state.type_name]}")
    return StatefulSession(
        None if state is None else _parse_state(state),
        node.get("strict"),
        node.get("stat_prefix"),
    )


def parse_stateful_session_per_route(node: Node) -> StatefulSession:
    """`StatefulSessionPerRoute`: one that is disabled has no sessions. As in Envoy, routes have no statistics."""
    node.get("disabled")
    override = node.child("stateful_session")
    if override is None:
        return StatefulSession()
    override.ignore("stat_prefix", "routes have no statistics of their own")
    own = parse_stateful_session(override)
    return StatefulSession(own.session_state, own.strict)


def _parse_state(node: Node) -> SessionState | None:
    if node.type_name == _HEADER:
        return HeaderSessionState(node.get("name").lower().encode())
    cookie = node.child("cookie")
    if cookie is None:
        return None  # which the constraints of the message refuse
    return CookieSessionState(
        cookie.get("name").encode(),
        int(cookie.duration("ttl", 0.0) or 0.0),
        cookie.get("path").encode(),
        tuple((each.get("name").encode(), each.get("value").encode()) for each in cookie.children("attributes")),
    )
