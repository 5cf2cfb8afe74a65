"""What the proxy's own replies look like: `LocalReplyConfig` of the HTTP connection manager."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.access_log import AccessLogFilter, parse_access_log_filter
from sidecar.config.core_types import (
    HeaderValueOption,
    SubstitutionFormatString,
    parse_data_source,
    parse_header_value_option,
    parse_substitution_format,
)
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class ResponseMapper:
    """Changes to the replies that `filter` selects (all when None); None leaves a part as it is."""

    filter: AccessLogFilter | None
    status_code: int | None = None
    body: bytes | None = None
    body_format_override: SubstitutionFormatString | None = None
    headers_to_add: tuple[HeaderValueOption, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalReplyConfig:
    """The first mapper that fits is applied, then `body_format` (the body alone when None)."""

    mappers: tuple[ResponseMapper, ...] = ()
    body_format: SubstitutionFormatString | None = None


NO_LOCAL_REPLY_CONFIG = LocalReplyConfig()


def parse_local_reply_config(node: Node | None) -> LocalReplyConfig:
    """`LocalReplyConfig`."""
    if node is None:
        return NO_LOCAL_REPLY_CONFIG
    return LocalReplyConfig(tuple(map(_parse_mapper, node.children("mappers"))), _parse_format(node, "body_format"))


def _parse_mapper(node: Node) -> ResponseMapper:
    condition, body = node.child("filter"), node.child("body")
    return ResponseMapper(
        None if condition is None else parse_access_log_filter(condition),
        node.wrapped("status_code", None),
        None if body is None else parse_data_source(body),
        _parse_format(node, "body_format_override"),
        tuple(map(parse_header_value_option, node.children("headers_to_add"))),
    )


def _parse_format(node: Node, field: str) -> SubstitutionFormatString | None:
    body_format = node.child(field)
    return None if body_format is None else parse_substitution_format(body_format)
