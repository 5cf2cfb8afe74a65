"""What of a request decides where consistent hashing sends it: `route.v3.RouteAction.HashPolicy`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node
from sidecar.config.matcher import RegexMatchAndSubstitute, header_name, parse_regex_rewrite


@dataclass(frozen=True, slots=True)
class HashHeader:
    """Hash the header `header_name`, after `regex_rewrite` if there is one."""

    header_name: bytes
    regex_rewrite: RegexMatchAndSubstitute | None
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class HashCookie:
    """Hash the cookie `name`. With a `ttl` (seconds; 0 makes a session cookie) a request without it is given one."""

    name: bytes
    ttl: float | None
    path: bytes
    attributes: tuple[tuple[bytes, bytes], ...]
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class HashSourceIp:
    """Hash the downstream's IP address."""

    terminal: bool = False


@dataclass(frozen=True, slots=True)
class HashQueryParameter:
    """Hash the query parameter `name`."""

    name: bytes
    terminal: bool = False


HashPolicy: TypeAlias = HashHeader | HashCookie | HashSourceIp | HashQueryParameter
"""In a list of them, the hashes are combined, and a `terminal` one that yields a hash ends the list."""


def parse_hash_policies(nodes: Iterable[Node]) -> tuple[HashPolicy, ...]:
    """A list of `route.v3.RouteAction.HashPolicy`. Connection properties that name no property drop out."""
    policies = map(_parse_hash_policy, nodes)
    return tuple(policy for policy in policies if policy is not None)


def _parse_hash_policy(node: Node) -> HashPolicy | None:
    terminal = node.get("terminal")
    header = node.child("header")
    if header is not None:
        rewrite = header.child("regex_rewrite")
        return HashHeader(
            header_name(header.get("header_name")), None if rewrite is None else parse_regex_rewrite(rewrite), terminal
        )
    cookie = node.child("cookie")
    if cookie is not None:
        attributes = tuple(
            (attribute.get("name").encode(), attribute.get("value").encode())
            for attribute in cookie.children("attributes")
        )
        name, path = cookie.get("name").encode(), cookie.get("path").encode()
        return HashCookie(name, cookie.duration("ttl"), path, attributes, terminal)
    query_parameter = node.child("query_parameter")
    if query_parameter is not None:
        return HashQueryParameter(query_parameter.get("name").encode(), terminal)
    connection = node.child("connection_properties")
    return HashSourceIp(terminal) if connection is not None and connection.get("source_ip") else None
