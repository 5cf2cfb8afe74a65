"""Parts of Envoy's configuration within resources: whether they are what Envoy's protobufs say."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from google.protobuf import json_format, symbol_database
from google.protobuf.message import Message

# What a patch's value is a part of, by `applyTo`: module and message.
_MESSAGES = {
    "LISTENER": ("envoy.config.listener.v3.listener_pb2", "Listener"),
    "FILTER_CHAIN": ("envoy.config.listener.v3.listener_components_pb2", "FilterChain"),
    "NETWORK_FILTER": ("envoy.config.listener.v3.listener_components_pb2", "Filter"),
    "LISTENER_FILTER": ("envoy.config.listener.v3.listener_components_pb2", "ListenerFilter"),
    "HTTP_FILTER": (
        "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
        "HttpFilter",
    ),
    "ROUTE_CONFIGURATION": ("envoy.config.route.v3.route_pb2", "RouteConfiguration"),
    "VIRTUAL_HOST": ("envoy.config.route.v3.route_components_pb2", "VirtualHost"),
    "HTTP_ROUTE": ("envoy.config.route.v3.route_components_pb2", "Route"),
    "CLUSTER": ("envoy.config.cluster.v3.cluster_pb2", "Cluster"),
    "EXTENSION_CONFIG": ("envoy.config.core.v3.extension_pb2", "TypedExtensionConfig"),
}
_TYPE_URL = re.compile(r"(?:[\w./-]*/)?([\w.]+)\.(\w+)", re.ASCII)


def envoy_message(apply_to: str, value: Mapping[str, Any]) -> Message:
    """The Envoy message of a patch's value. Raises ValueError with what is wrong."""
    module, name = _MESSAGES[apply_to]
    message: Message = getattr(importlib.import_module(module), name)()
    for _, type_url in type_urls(value):
        know_type(type_url)
    try:
        return json_format.ParseDict(dict(value), message)
    except (json_format.ParseError, TypeError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None  # the lines behind it list all fields


def envoy_complaints(apply_to: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a patch's value, each with its path within it."""
    unknown = False
    for path, type_url in type_urls(value):
        if not know_type(type_url):
            unknown = True
            yield f"{path}[@type]", f'"{type_url}" is not a type of Envoy\'s API: correct it, or remove the patch'
    if not unknown:
        try:
            envoy_message(apply_to, value)
        except ValueError as error:
            yield "", f"is not what Envoy's {_MESSAGES[apply_to][1]} has: {error}"


def type_urls(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The types that are named in a value, each with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "@type":
                yield path, str(item)
            else:
                yield from type_urls(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from type_urls(item, f"{path}[{index}]")


@cache
def know_type(type_url: str) -> bool:
    """Load the message of a type URL, so that protobuf can read it; False if there is none."""
    match = _TYPE_URL.fullmatch(type_url)
    if match is None:
        return False
    package, name = match.groups()
    if not package.startswith(("envoy.", "google.", "xds.", "udpa.")):
        return False
    folder = "google.protobuf" if package == "google.protobuf" else package
    try:
        spec = importlib.util.find_spec(folder)
    except ModuleNotFoundError:
        return False
    for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{folder}.{module.name}")
    try:
        symbol_database.Default().pool.FindMessageTypeByName(f"{package}.{name}")
    except KeyError:
        return False
    return True
