"""/config_dump: the configuration that runs, secrets left out. Source: `envoy.admin.v3.ConfigDump`.

The bootstrap is parsed for each request and written piece by piece; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sidecar.admin.context import AdminContext
from sidecar.admin.endpoints_dump import endpoint_config
from sidecar.admin.field_mask import ALL, Mask, fits, parse_mask
from sidecar.admin.json_text import Array, Object, json_chunks
from sidecar.admin.message_json import any_members, message_value
from sidecar.admin.page import ERROR, JSON, Page
from sidecar.admin.patterns import InvalidPatternError, compile_pattern
from sidecar.config.extensions import message_class, type_name_of

_URL = "type.googleapis.com/"
_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_CLUSTER = "envoy.config.cluster.v3.Cluster"
_LISTENER = "envoy.config.listener.v3.Listener"
_ROUTES = "envoy.config.route.v3.RouteConfiguration"
_SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"


class Resource(NamedTuple):
    """One entry of a repeated field of a dump; `member` holds `content`: a message, or a lazy object ready to write."""

    name: str
    member: str
    content: Any


class Dump(NamedTuple):
    """One of the dumps of `configs`: `type_name` in `envoy.admin.v3`, and its only filled repeated field.

    `field`, `element` and `resource_type` name that field, its message and what is in it. The bootstrap's dump has
    `message` instead.
    """

    type_name: str
    field: str = ""
    element: str = ""
    resource_type: str = ""
    resources: Iterable[Resource] = ()
    message: Any = None


def config_dump_page(context: AdminContext, parameters: dict[str, str]) -> Page:
    """`resource` picks one repeated field, `mask` some fields, `name_regex` the resources whose whole name it matches;
    `include_eds` adds endpoints.
    """
    wanted: Callable[[str], Any] | None = None
    if pattern := parameters.get("name_regex"):
        try:
            wanted = compile_pattern(pattern).fullmatch
        except InvalidPatternError as error:
            return _error(400, f"INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {error}")
    dumps = _dumps(context, "include_eds" in parameters, wanted)
    updated = datetime.fromtimestamp(context.started_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    mask_text = parameters.get("mask", "")
    mask = parse_mask(mask_text)
    if resource := parameters.get("resource"):
        return _one_field(dumps, resource, mask, mask_text, updated)
    kept = [dump for dump in dumps if not mask or _admits(dump, mask)]
    if mask and not kept:
        return _error(400, f"FieldMask {mask_text} could not be successfully applied to any configs.")
    return _page(_dump_value(dump, mask, updated) for dump in kept)


def _one_field(dumps: list[Dump], resource: str, mask: Mask, mask_text: str, updated: str) -> Page:
    for dump in dumps:
        descriptor = _descriptor(dump)
        field = descriptor.fields_by_name.get(resource)
        if field is None:
            continue
        if not field.is_repeated:
            message = f"{resource} is not a repeated field. Use ?mask={resource} to get only this field"
            return _error(400, message)
        if resource != dump.field:
            return _page(())
        inside = {member: message_class(dump.resource_type).DESCRIPTOR for member in _any_members(field.message_type)}
        if mask and not fits(mask, field.message_type, inside):
            return _error(400, f"FieldMask paths: {mask_text} could not be successfully used.")
        return _page(
            Object(_resource_members(f"{_URL}{dump.element}", dump, entry, mask, updated)) for entry in dump.resources
        )
    return _error(404, f"{resource} not found in config dump")


def _page(configs: Iterable[Any]) -> Page:
    rest = iter(configs)
    first = next(rest, None)
    if first is None:
        return Page(200, JSON, json_chunks({}))
    return Page(200, JSON, json_chunks({"configs": Array(item for part in ((first,), rest) for item in part)}))


def _error(status: int, message: str) -> Page:
    return Page(status, ERROR, message.encode())


def _descriptor(dump: Dump) -> Any:
    return message_class(dump.type_name).DESCRIPTOR


def _any_members(descriptor: Any) -> list[str]:
    return [
        field.name
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Any"
    ]


def _admits(dump: Dump, mask: Mask) -> bool:
    return fits(mask, _descriptor(dump))


def _dump_value(dump: Dump, mask: Mask, updated: str) -> Object:
    return Object(_dump_members(dump, mask, updated))


def _dump_members(dump: Dump, mask: Mask, updated: str) -> Iterator[tuple[str, Any]]:
    yield "@type", _URL + dump.type_name
    if dump.message is not None:
        if not mask or "bootstrap" in mask:
            yield "bootstrap", message_value(dump.message, mask.get("bootstrap", ALL))
        if not mask or "last_updated" in mask:
            yield "last_updated", updated
    elif not mask or dump.field in mask:
        rest = iter(dump.resources)
        first = next(rest, None)
        if first is not None:
            entries = (entry for part in ((first,), rest) for entry in part)
            yield dump.field, Array(Object(_resource_members("", dump, entry, ALL, updated)) for entry in entries)


def _resource_members(
    type_url: str, dump: Dump, entry: Resource, mask: Mask, updated: str
) -> Iterator[tuple[str, Any]]:
    if type_url:
        yield "@type", type_url
    if dump.field == "static_secrets" and (not mask or "name" in mask):
        yield "name", entry.name
    if not mask or entry.member in mask:
        if isinstance(entry.content, Object):
            yield entry.member, entry.content
        else:
            yield entry.member, any_members(dump.resource_type, entry.content, mask.get(entry.member, ALL))
    if dump.field not in ("static_secrets", "static_endpoint_configs") and (not mask or "last_updated" in mask):
        yield "last_updated", updated


def _dumps(context: AdminContext, include_eds: bool, wanted: Callable[[str], Any] | None) -> list[Dump]:
    bootstrap = context.bootstrap.parse()
    static = bootstrap.static_resources
    managers = list(_connection_managers(static.listeners))

    def named(messages: Iterable[Any], member: str) -> Iterator[Resource]:
        for message in messages:
            if wanted is None or wanted(message.name):
                yield Resource(message.name, member, message)

    def by_name(messages: Iterable[Any]) -> list[Any]:
        return sorted(messages, key=lambda message: message.name)

    routes = (routes for packed in managers for routes in _route_configurations(packed))
    admin = "envoy.admin.v3."
    dumps = [
        Dump(f"{admin}BootstrapConfigDump", message=bootstrap),
        _static(f"{admin}ClustersConfigDump", "static_clusters", "StaticCluster", _CLUSTER,
                named(by_name(static.clusters), "cluster")),
    ]  # fmt: skip
    if include_eds:
        clusters = sorted(context.clusters.clusters.values(), key=lambda cluster: cluster.name)
        dumps.append(
            _static(f"{admin}EndpointsConfigDump", "static_endpoint_configs", "StaticEndpointConfig", _ASSIGNMENT,
                    (Resource(cluster.name, "endpoint_config", endpoint_config(cluster))
                     for cluster in clusters if wanted is None or wanted(cluster.name)))
        )  # fmt: skip
    dumps.append(
        _static(f"{admin}ListenersConfigDump", "static_listeners", "StaticListener", _LISTENER,
                named(static.listeners, "listener"))
    )  # fmt: skip
    if managers:
        dumps.append(Dump(f"{admin}ScopedRoutesConfigDump"))
        dumps.append(
            _static(f"{admin}RoutesConfigDump", "static_route_configs", "StaticRouteConfig", _ROUTES,
                    named(routes, "route_config"))
        )  # fmt: skip
    dumps.append(
        _static(f"{admin}SecretsConfigDump", "static_secrets", "StaticSecret", _SECRET,
                named(by_name(static.secrets), "secret"))
    )  # fmt: skip
    return dumps


def _static(type_name: str, field: str, element: str, resource_type: str, resources: Iterable[Resource]) -> Dump:
    return Dump(type_name, field, f"{type_name}.{element}", resource_type, resources)


def _connection_managers(listeners: Iterable[Any]) -> Iterator[Any]:
    for listener in listeners:
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for network_filter in chain.filters:
                if type_name_of(network_filter.typed_config.type_url) == _CONNECTION_MANAGER:
                    yield network_filter.typed_config


def _route_configurations(packed: Any) -> Iterator[Any]:
    manager: Any = message_class(_CONNECTION_MANAGER).FromString(packed.value)
    if manager.HasField("route_config"):
        yield manager.route_config
