"""/config_dump: the configuration that runs, secrets left out. Source: `envoy.admin.v3.ConfigDump`.

The bootstrap is parsed for each request and written piece by piece; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sidecar.admin.context import AdminContext
from sidecar.admin.dynamic_dumps import RecordView, Resource, date_text, dynamic_listener, dynamic_resource, wants
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
_EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
_ADMIN = "envoy.admin.v3."


class Field(NamedTuple):
    """A repeated field of a dump: its name, its message, and what is in that."""

    name: str
    element: str
    resource_type: str
    resources: Iterable[Resource] = ()


class Dump(NamedTuple):
    """One of the dumps of `configs`: `type_name` in `envoy.admin.v3`, with its filled repeated fields.

    The bootstrap's dump has `message` instead. `version` is that of the last response, empty if there was none.
    """

    type_name: str
    fields: tuple[Field, ...] = ()
    message: Any = None
    version: str = ""


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
    updated = date_text(context.started_at)
    dumps = _dumps(context, "include_eds" in parameters, wanted, updated)
    mask_text = parameters.get("mask", "")
    mask = parse_mask(mask_text)
    if resource := parameters.get("resource"):
        return _one_field(dumps, resource, mask, mask_text)
    kept = [dump for dump in dumps if not mask or _admits(dump, mask)]
    if mask and not kept:
        return _error(400, f"FieldMask {mask_text} could not be successfully applied to any configs.")
    return _page(_dump_value(dump, mask, updated) for dump in kept)


def _one_field(dumps: list[Dump], resource: str, mask: Mask, mask_text: str) -> Page:
    for dump in dumps:
        descriptor = _descriptor(dump)
        described = descriptor.fields_by_name.get(resource)
        if described is None:
            continue
        if not described.is_repeated:
            message = f"{resource} is not a repeated field. Use ?mask={resource} to get only this field"
            return _error(400, message)
        field = next((one for one in dump.fields if one.name == resource), None)
        if field is None:
            return _page(())
        inside = {
            member: message_class(field.resource_type).DESCRIPTOR for member in _any_members(described.message_type)
        }
        if mask and not fits(mask, described.message_type, inside):
            return _error(400, f"FieldMask paths: {mask_text} could not be successfully used.")
        return _page(Object(_with_type(f"{_URL}{field.element}", entry.members(mask))) for entry in field.resources)
    return _error(404, f"{resource} not found in config dump")


def _with_type(type_url: str, members: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    yield "@type", type_url
    yield from members


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
        return
    if dump.version and (not mask or "version_info" in mask):
        yield "version_info", dump.version
    for field in dump.fields:
        if not mask or field.name in mask:
            rest = iter(field.resources)
            first = next(rest, None)
            if first is not None:
                yield field.name, Array(_entries(first, rest))


def _entries(first: Resource, rest: Iterator[Resource]) -> Iterator[Object]:
    yield Object(first.members(ALL))
    for entry in rest:
        yield Object(entry.members(ALL))


def _static_resource(name: str, member: str, type_name: str, content: Any, updated: str) -> Resource:
    """`content` is a message, or a lazy object ready to write; `updated` is empty where the time is not shown."""

    def members(mask: Mask) -> Iterator[tuple[str, Any]]:
        if wants(mask, member):
            if isinstance(content, Object):
                yield member, content
            else:
                yield member, any_members(type_name, content, mask.get(member, ALL))
        if updated and wants(mask, "last_updated"):
            yield "last_updated", updated

    return Resource(name, members)


def _dumps(context: AdminContext, include_eds: bool, wanted: Callable[[str], Any] | None, updated: str) -> list[Dump]:
    bootstrap = context.bootstrap.parse()
    static = bootstrap.static_resources
    managers = list(_connection_managers(static.listeners))
    discovered = context.discovered()

    def is_wanted(named: Any) -> bool:
        return wanted is None or bool(wanted(named.name))

    def statics(messages: Iterable[Any], member: str, type_name: str) -> Iterator[Resource]:
        return (_static_resource(one.name, member, type_name, one, updated) for one in messages if is_wanted(one))

    def dynamics(records: Iterable[RecordView], member: str, *, named: bool = False) -> Iterator[Resource]:
        return (dynamic_resource(one, member, named=named) for one in records if is_wanted(one))

    clusters = [_field("clusters.StaticCluster", "static_clusters", _CLUSTER,
                       statics(_by_name(static.clusters), "cluster", _CLUSTER))]  # fmt: skip
    listeners = [_field("listeners.StaticListener", "static_listeners", _LISTENER,
                        statics(static.listeners, "listener", _LISTENER))]  # fmt: skip
    inline = (routes for packed in managers for routes in _route_configurations(packed))
    routes = [_field("routes.StaticRouteConfig", "static_route_configs", _ROUTES,
                     statics(inline, "route_config", _ROUTES))]  # fmt: skip
    secrets = [_field("secrets.StaticSecret", "static_secrets", _SECRET,
                      map(_static_secret, filter(is_wanted, _by_name(static.secrets))))]  # fmt: skip
    versions = ("", "")
    extensions: list[RecordView] = []
    has_routes = bool(managers)
    if discovered is not None:
        versions = discovered.cluster_version, discovered.listener_version
        has_routes = discovered.has_routes
        clusters += [
            _field("clusters.DynamicCluster", name, _CLUSTER, dynamics(_by_name(found), "cluster"))
            for name, found in (
                ("dynamic_active_clusters", discovered.active_clusters()),
                ("dynamic_warming_clusters", discovered.warming_clusters()),
            )
        ]
        states = map(dynamic_listener, filter(is_wanted, discovered.listener_states()))
        listeners.append(_field("listeners.DynamicListener", "dynamic_listeners", _LISTENER, states))
        found = dynamics(discovered.route_configurations(), "route_config")
        routes.append(_field("routes.DynamicRouteConfig", "dynamic_route_configs", _ROUTES, found))
        secrets += [
            _field("secrets.DynamicSecret", name, _SECRET, dynamics(found, "secret", named=True))
            for name, found in (
                ("dynamic_active_secrets", discovered.active_secrets()),
                ("dynamic_warming_secrets", discovered.warming_secrets()),
            )
        ]
        extensions = list(discovered.extensions())
    dumps = [
        Dump(f"{_ADMIN}BootstrapConfigDump", message=bootstrap),
        Dump(f"{_ADMIN}ClustersConfigDump", tuple(clusters), version=versions[0]),
    ]
    if extensions:
        filters = _field("ecds.EcdsFilterConfig", "ecds_filters", _EXTENSION, dynamics(extensions, "ecds_filter"))
        dumps.append(Dump(f"{_ADMIN}EcdsConfigDump", (filters,)))
    if include_eds:
        dumps.append(Dump(f"{_ADMIN}EndpointsConfigDump", _endpoint_fields(context, is_wanted)))
    dumps.append(Dump(f"{_ADMIN}ListenersConfigDump", tuple(listeners), version=versions[1]))
    if has_routes:
        dumps += [Dump(f"{_ADMIN}ScopedRoutesConfigDump"), Dump(f"{_ADMIN}RoutesConfigDump", tuple(routes))]
    dumps.append(Dump(f"{_ADMIN}SecretsConfigDump", tuple(secrets)))
    return dumps


def _endpoint_fields(context: AdminContext, is_wanted: Callable[[Any], bool]) -> tuple[Field, ...]:
    clusters = [one for one in _by_name(context.clusters.clusters.values()) if is_wanted(one)]

    def found(dynamic: bool) -> Iterator[Resource]:
        for cluster in clusters:
            if (cluster.config.type == "EDS") is dynamic:
                yield _static_resource(cluster.name, "endpoint_config", _ASSIGNMENT, endpoint_config(cluster), "")

    return (
        _field("endpoints.StaticEndpointConfig", "static_endpoint_configs", _ASSIGNMENT, found(False)),
        _field("endpoints.DynamicEndpointConfig", "dynamic_endpoint_configs", _ASSIGNMENT, found(True)),
    )


def _by_name(named: Iterable[Any]) -> list[Any]:
    return sorted(named, key=lambda one: one.name)


def _static_secret(message: Any) -> Resource:
    """With its name, and without a time."""
    inner = _static_resource(message.name, "secret", _SECRET, message, "")

    def members(mask: Mask) -> Iterator[tuple[str, Any]]:
        if wants(mask, "name"):
            yield "name", message.name
        yield from inner.members(mask)

    return Resource(message.name, members)


def _field(element: str, name: str, resource_type: str, resources: Iterable[Resource]) -> Field:
    """`element` is the message in the field: `clusters.StaticCluster` is that of `ClustersConfigDump`."""
    dump, _, message = element.partition(".")
    return Field(name, f"{_ADMIN}{dump.capitalize()}ConfigDump.{message}", resource_type, resources)


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
