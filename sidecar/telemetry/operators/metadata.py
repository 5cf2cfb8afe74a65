"""Commands about metadata and filter state: what configuration and filters attached to a request and what it met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sidecar.core.metadata_match import metadata_value

from ..format_code import Value, any_value
from ..format_syntax import Command
from .base import FormatContext, Make, Operator

_SOURCES = {
    "DYNAMIC": "stream.dynamic_metadata",
    "ROUTE": "(stream.route and stream.route.metadata)",
    "UPSTREAM_HOST": "(host and host.metadata)",
    "CLUSTER": "$1(stream.cluster_name)",
}


def _path(command: Command, arguments: str) -> tuple[str, ...]:
    """`namespace:key:key`, or the older `["namespace", "key"]` of header values."""
    if arguments.startswith("["):
        try:
            path = json.loads(arguments)
        except ValueError:
            raise command.error("the list of namespace and keys is not JSON") from None
        if not path or not all(isinstance(key, str) for key in path):
            raise command.error("namespace and keys must be strings")
        return tuple(path)
    return tuple(arguments.split(":"))


def _value(source: str, path: tuple[str, ...], context: FormatContext) -> Value:
    expression = _SOURCES[source]

    def find(metadata: Mapping[str, Any] | None) -> Any:
        return metadata_value(metadata, path)

    return any_value(f"$0({expression})", find, context.cluster_metadata)


def _of(source: str) -> Make:
    def make(command: Command, context: FormatContext) -> Value:
        return _value(source, _path(command, command.arguments), context)

    return make


def _typed(command: Command, context: FormatContext) -> Value:
    source, _, path = command.arguments.partition(":")
    if source not in _SOURCES:
        raise command.error(f"{source!r} is not one of the kinds of metadata {', '.join(_SOURCES)}")
    return _value(source, _path(command, path), context)


def _filter_state(command: Command, context: FormatContext) -> Value:
    key, _, rest = command.arguments.partition(":")
    kind, _, field = rest.partition(":")
    if not key:
        raise command.error("requires the key of the state")
    if kind not in ("", "PLAIN", "TYPED", "FIELD"):
        raise command.error("the second argument is PLAIN, TYPED or FIELD")
    if bool(field) != (kind == "FIELD"):
        raise command.error("FIELD, and only FIELD, goes with the name of a field")

    def find(state: Mapping[str, Any] | None) -> Any:
        value = state.get(key) if state else None
        if kind == "PLAIN":
            return getattr(value, "plain", value)
        if not field or value is None:
            return value
        return value.get(field) if isinstance(value, Mapping) else getattr(value, field, None)

    return any_value("$0(stream.filter_state)", find)


METADATA = {
    "DYNAMIC_METADATA": Operator(_of("DYNAMIC"), "required", True),
    "CLUSTER_METADATA": Operator(_of("CLUSTER"), "required"),
    "UPSTREAM_METADATA": Operator(_of("UPSTREAM_HOST"), "required"),
    "METADATA": Operator(_typed, "required", True),
    "FILTER_STATE": Operator(_filter_state, "required", True),
    "PER_REQUEST_STATE": Operator(_filter_state, "required"),
}
