"""Where dynamic resources come from: `core.v3.ConfigSource`, a management server or a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sidecar.config.core_types import seconds
from sidecar.config.fields import Node
from sidecar.config.grpc_service import GrpcService, parse_grpc_service
from sidecar.config.retry_policy import RetryBackOff, parse_back_off

ApiType: TypeAlias = Literal["REST", "GRPC", "DELTA_GRPC"]

_API_TYPES: Final = ("REST", "GRPC", "DELTA_GRPC")
_STREAMS: Final = ("GRPC", "DELTA_GRPC")
_INITIAL_FETCH_TIMEOUT: Final = 15.0
_REQUEST_TIMEOUT: Final = 1.0
_MAX_TOKENS: Final = 100
_FILL_RATE: Final = 10.0


@dataclass(frozen=True, slots=True)
class PathConfigSource:
    """A file that holds a `DiscoveryResponse`, read again when something is moved onto it.

    `watched_directory` is the directory in which a move says that the file is to be read again, empty for the file's own.
    """

    path: str
    watched_directory: str = ""


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """How many requests the server is sent: `max_tokens` at once, `fill_rate` of them come back each second."""

    max_tokens: int = _MAX_TOKENS
    fill_rate: float = _FILL_RATE


@dataclass(frozen=True, slots=True)
class ApiConfigSource:
    """A management server. `grpc_service` is for streams, `cluster_name` for REST.

    `refresh_delay` is the time from one answer over REST to the next question, `request_timeout` how long the answer may
    take, both in seconds. `rate_limit_settings` None sets no limit, `retry_back_off` None
    leaves the waits between two streams to who makes them.
    """

    api_type: ApiType
    grpc_service: GrpcService | None = None
    cluster_name: str = ""
    refresh_delay: float = 0.0
    request_timeout: float = _REQUEST_TIMEOUT
    rate_limit_settings: RateLimitSettings | None = None
    set_node_on_first_message_only: bool = False
    retry_back_off: RetryBackOff | None = None


@dataclass(frozen=True, slots=True)
class AggregatedConfigSource:
    """The stream of `dynamic_resources.ads_config`, which all types share."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Whom to ask for resources. Who waits for them goes on without after `initial_fetch_timeout` seconds, 0 for never."""

    source: AggregatedConfigSource | ApiConfigSource | PathConfigSource
    initial_fetch_timeout: float = _INITIAL_FETCH_TIMEOUT


ADS: Final = AggregatedConfigSource()


@dataclass(frozen=True, slots=True)
class DynamicResources:
    """`bootstrap.v3.Bootstrap.DynamicResources`: where listeners and clusters come from, and the shared stream."""

    lds_config: ConfigSource | None = None
    cds_config: ConfigSource | None = None
    ads_config: ApiConfigSource | None = None


def parse_dynamic_resources(node: Node) -> DynamicResources:
    """`DynamicResources`. The cluster of a server must be one of the bootstrap's."""
    lds, cds, ads = node.child("lds_config"), node.child("cds_config"), node.child("ads_config")
    for name in ("lds_resources_locator", "cds_resources_locator"):
        if node.get(name):
            node.refuse(
                "collections of xdstp resources are not implemented by Mizzen", name, "use lds_config, cds_config"
            )
    node.context.has_ads = ads is not None
    return DynamicResources(
        None if lds is None else parse_config_source(lds),
        None if cds is None else parse_config_source(cds),
        None if ads is None else _parse_ads(ads),
    )


def parse_config_source(node: Node) -> ConfigSource:
    """`core.v3.ConfigSource`."""
    _check_version(node, "resource_api_version")
    return ConfigSource(_parse_source(node), seconds(node, "initial_fetch_timeout", _INITIAL_FETCH_TIMEOUT))


def parse_api_config_source(node: Node) -> ApiConfigSource:
    """`core.v3.ApiConfigSource`."""
    _check_version(node, "transport_api_version")
    api_type = _parse_api_type(node)
    names, services = node.get("cluster_names"), node.children("grpc_services")
    service = back_off = None
    cluster = ""
    if api_type == "REST":
        if services:
            node.refuse("is for streams, and this is REST", "grpc_services", "name the cluster in cluster_names")
        if len(names) != 1:
            node.refuse("must name one cluster", "cluster_names", "name the cluster of the management server")
        else:
            cluster = names[0]
            node.context.reference("cluster", cluster, node, "cluster_names")
        if not node.has("refresh_delay"):
            node.refuse("is required for REST", "refresh_delay", "say how often to ask")
    else:
        if names:
            node.refuse(f"is for REST, and this is {api_type}", "cluster_names", "use grpc_services")
        if len(services) != 1:
            node.refuse("must have one service", "grpc_services", "name the management server with envoy_grpc")
        for one in services:
            service, back_off = parse_grpc_service(one), _parse_back_off(one)
    return ApiConfigSource(
        api_type,
        service,
        cluster,
        seconds(node, "refresh_delay", 0.0),
        seconds(node, "request_timeout", _REQUEST_TIMEOUT),
        _parse_rate_limit(node.child("rate_limit_settings")),
        node.get("set_node_on_first_message_only"),
        back_off,
    )


def parse_hds_config(node: Node) -> ApiConfigSource:
    """The server that has hosts checked: `hds_config` of the bootstrap."""
    parsed = parse_api_config_source(node)
    if parsed.api_type != "GRPC":
        node.refuse(f"cannot be {parsed.api_type} for health checks", "api_type", "use GRPC")
    return parsed


def _parse_ads(node: Node) -> ApiConfigSource:
    parsed = parse_api_config_source(node)
    if parsed.api_type not in _STREAMS:
        node.refuse(
            f"cannot be {parsed.api_type} for a stream that all types share", "api_type", "use GRPC or DELTA_GRPC"
        )
    return parsed


def _parse_source(node: Node) -> AggregatedConfigSource | ApiConfigSource | PathConfigSource:
    match node.which("config_source_specifier"):
        case "ads":
            node.child("ads")
            if not node.context.has_ads:
                node.refuse("needs a stream that all types share", "ads", "add dynamic_resources.ads_config")
        case "path":
            return PathConfigSource(_parse_path(node))
        case "path_config_source":
            path = node.child("path_config_source")
            if path is not None:
                watched = path.child("watched_directory")
                return PathConfigSource(_parse_path(path), "" if watched is None else watched.get("path"))
        case "api_config_source":
            api = node.child("api_config_source")
            if api is not None:
                return parse_api_config_source(api)
        case "self":
            node.child("self")
            node.refuse("is not implemented by Mizzen, nor by Envoy", "self", "use ads, or name the server again")
    return ADS  # that there is a source is one of Envoy's constraints, which are checked before


def _parse_path(node: Node) -> str:
    path: str = node.get("path")
    if not os.path.exists(path):
        node.refuse("there is no such file", "path", "write it before, so that nothing begins without it")
    return path


def _check_version(node: Node, name: str) -> None:
    if node.enum(name) == "V2":
        node.refuse("V2 is no more", name, "make it V3")


def _parse_api_type(node: Node) -> ApiType:
    name = node.enum("api_type")
    for api_type in _API_TYPES:
        if name == api_type:
            return api_type
    if name.startswith("AGGREGATED_"):
        node.refuse(
            f"{name} is for collections of xdstp resources, which are not implemented by Mizzen",
            "api_type",
            "set ads_config, and use ads",
        )
    else:
        node.refuse(f"{name} is no type of server", "api_type", f"use {', '.join(_API_TYPES)}")
    return "GRPC"


def _parse_back_off(node: Node) -> RetryBackOff | None:
    """The waits of a stream that is made again; nothing else of its retry policy means anything, and so it is refused."""
    envoy = node.child("envoy_grpc")
    policy = None if envoy is None else envoy.child("retry_policy")
    back_off = None if policy is None else policy.child("retry_back_off")
    return None if back_off is None else parse_back_off(back_off)


def _parse_rate_limit(node: Node | None) -> RateLimitSettings | None:
    if node is None:
        return None
    return RateLimitSettings(node.wrapped("max_tokens", _MAX_TOKENS), node.wrapped("fill_rate", _FILL_RATE))
