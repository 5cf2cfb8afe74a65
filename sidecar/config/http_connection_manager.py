"""One HTTP entrance: `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.config import left_out
from sidecar.config.access_log import AccessLog, parse_access_logs
from sidecar.config.address import CidrRange, parse_cidr_ranges
from sidecar.config.core_types import seconds
from sidecar.config.fields import Node
from sidecar.config.filters import router
from sidecar.config.http2_protocol_options import HTTP2_DEFAULTS, Http2ProtocolOptions, parse_http2_protocol_options
from sidecar.config.http_filters import HTTP_FILTERS, HttpFilter, parse_http_filter
from sidecar.config.local_reply import NO_LOCAL_REPLY_CONFIG, LocalReplyConfig, parse_local_reply_config
from sidecar.config.protocol_options import (
    DOWNSTREAM_DEFAULTS,
    HTTP1_DEFAULTS,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    parse_downstream_protocol_options,
    parse_http1_protocol_options,
)
from sidecar.config.route import RouteConfiguration, parse_route_configuration
from sidecar.config.tls_forwarding import (
    NO_CERTIFICATE_DETAILS,
    SetCurrentClientCertDetails,
    parse_set_current_client_cert_details,
)

if TYPE_CHECKING:
    from sidecar.config.config_source import ConfigSource

_UUID = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"


@dataclass(frozen=True, slots=True)
class InternalAddressConfig:
    """Whose requests count as internal: those over Unix sockets, those from `cidr_ranges`."""

    unix_sockets: bool = False
    cidr_ranges: tuple[CidrRange, ...] = ()


@dataclass(frozen=True, slots=True)
class UpgradeConfig:
    """An upgrade (`upgrade_type` in lower case, `connect` for CONNECT) that is let through when `enabled`.

    `filters` None is the connection manager's own chain.
    """

    upgrade_type: bytes
    filters: tuple[HttpFilter, ...] | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class AccessLogOptions:
    """When lines are written besides at a request's end: when it has come in, and every so many seconds (0: not)."""

    flush_access_log_on_new_request: bool = False
    access_log_flush_interval: float = 0.0


_NO_ACCESS_LOG_OPTIONS = AccessLogOptions()


@dataclass(frozen=True, slots=True)
class Rds:
    """Where a route configuration comes from, and its name."""

    config_source: ConfigSource
    route_config_name: str


@dataclass(frozen=True, slots=True)
class HttpConnectionManager:
    """How connections become requests, and what is done with them.

    Durations are in seconds, 0 for none. `codec_type` is AUTO, HTTP1 or HTTP2. `path_with_escaped_slashes_action` is
    KEEP_UNCHANGED, REJECT_REQUEST, UNESCAPE_AND_REDIRECT or UNESCAPE_AND_FORWARD, `server_header_transformation`
    OVERWRITE, APPEND_IF_ABSENT or PASS_THROUGH. `scheme_to_overwrite` is empty when the scheme stays; `via` is empty
    when none is added. `forward_client_cert_details` is Envoy's enum value: without a certificate of the client all but
    ALWAYS_FORWARD_ONLY take x-forwarded-client-cert away. With `rds` the routes come by discovery, and there are none before.
    """

    stat_prefix: str
    route_config: RouteConfiguration
    http_filters: tuple[HttpFilter, ...] = ()
    codec_type: str = "AUTO"
    add_user_agent: bool = False
    common_http_protocol_options: HttpProtocolOptions = DOWNSTREAM_DEFAULTS
    http_protocol_options: Http1ProtocolOptions = HTTP1_DEFAULTS
    http2_protocol_options: Http2ProtocolOptions = HTTP2_DEFAULTS
    server_name: bytes = b"envoy"
    server_header_transformation: str = "OVERWRITE"
    scheme_to_overwrite: bytes = b""
    max_request_headers_kb: int = 60
    stream_idle_timeout: float = 300.0
    request_timeout: float = 0.0
    request_headers_timeout: float = 0.0
    drain_timeout: float = 5.0
    delayed_close_timeout: float = 1.0
    access_log: tuple[AccessLog, ...] = ()
    access_log_options: AccessLogOptions = _NO_ACCESS_LOG_OPTIONS
    use_remote_address: bool = False
    xff_num_trusted_hops: int = 0
    internal_address_config: InternalAddressConfig = field(default_factory=InternalAddressConfig)
    skip_xff_append: bool = False
    append_x_forwarded_port: bool = False
    via: bytes = b""
    generate_request_id: bool = True
    preserve_external_request_id: bool = False
    always_set_request_id_in_response: bool = False
    forward_client_cert_details: str = "SANITIZE"
    set_current_client_cert_details: SetCurrentClientCertDetails = NO_CERTIFICATE_DETAILS
    proxy_100_continue: bool = False
    append_local_overload: bool = False
    upgrade_configs: tuple[UpgradeConfig, ...] = ()
    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: str = "KEEP_UNCHANGED"
    local_reply_config: LocalReplyConfig = NO_LOCAL_REPLY_CONFIG
    strip_matching_host_port: bool = False
    strip_any_host_port: bool = False
    strip_trailing_host_dot: bool = False
    rds: Rds | None = None


def parse_http_connection_manager(node: Node) -> HttpConnectionManager:
    """`HttpConnectionManager`."""
    codec_type = node.enum("codec_type")
    if codec_type not in ("AUTO", "HTTP1", "HTTP2"):
        node.refuse(f"{codec_type} is not implemented by Mizzen", "codec_type", "use AUTO, HTTP1 or HTTP2")
    stream_error = node.wrapped("stream_error_on_invalid_http_message", None)
    if stream_error and codec_type != "HTTP2":
        node.refuse(
            "holds for HTTP/1 too, where Mizzen closes such a connection",
            "stream_error_on_invalid_http_message",
            "set http2_protocol_options.override_stream_error_on_invalid_http_message",
        )
    if node.get("strip_matching_host_port") and node.get("strip_any_host_port"):
        node.refuse("is set together with strip_matching_host_port", "strip_any_host_port", "keep one of them")
    scheme = node.child("scheme_header_transformation")
    escaped_slashes = node.enum("path_with_escaped_slashes_action")
    routes = node.child("route_config")
    _check_request_id(node.child("request_id_extension"))
    return HttpConnectionManager(
        stat_prefix=node.get("stat_prefix"),
        route_config=_NO_ROUTES if routes is None else parse_route_configuration(routes),
        http_filters=parse_http_filters(node.children("http_filters")),
        codec_type=codec_type,
        add_user_agent=node.wrapped("add_user_agent", False),
        common_http_protocol_options=parse_downstream_protocol_options(node.child("common_http_protocol_options")),
        http_protocol_options=parse_http1_protocol_options(node.child("http_protocol_options")),
        http2_protocol_options=parse_http2_protocol_options(
            node.child("http2_protocol_options"), stream_error=stream_error
        ),
        server_name=node.get("server_name").encode() or b"envoy",
        server_header_transformation=node.enum("server_header_transformation"),
        scheme_to_overwrite=b"" if scheme is None else scheme.get("scheme_to_overwrite").encode(),
        max_request_headers_kb=node.wrapped("max_request_headers_kb", 60),
        stream_idle_timeout=seconds(node, "stream_idle_timeout", 300.0),
        request_timeout=seconds(node, "request_timeout", 0.0),
        request_headers_timeout=seconds(node, "request_headers_timeout", 0.0),
        drain_timeout=seconds(node, "drain_timeout", 5.0),
        delayed_close_timeout=seconds(node, "delayed_close_timeout", 1.0),
        access_log=parse_access_logs(node.children("access_log")),
        access_log_options=_parse_access_log_options(node.child("access_log_options")),
        use_remote_address=node.wrapped("use_remote_address", False),
        xff_num_trusted_hops=node.get("xff_num_trusted_hops"),
        internal_address_config=_parse_internal_address_config(node.child("internal_address_config")),
        skip_xff_append=node.get("skip_xff_append"),
        append_x_forwarded_port=node.get("append_x_forwarded_port"),
        via=node.get("via").encode(),
        generate_request_id=node.wrapped("generate_request_id", True),
        preserve_external_request_id=node.get("preserve_external_request_id"),
        always_set_request_id_in_response=node.get("always_set_request_id_in_response"),
        forward_client_cert_details=node.enum("forward_client_cert_details"),
        set_current_client_cert_details=parse_set_current_client_cert_details(
            node.child("set_current_client_cert_details")
        ),
        proxy_100_continue=node.get("proxy_100_continue"),
        append_local_overload=node.get("append_local_overload"),
        upgrade_configs=_parse_upgrade_configs(node.children("upgrade_configs")),
        normalize_path=node.wrapped("normalize_path", False),
        merge_slashes=node.get("merge_slashes"),
        path_with_escaped_slashes_action=(
            "KEEP_UNCHANGED" if escaped_slashes == "IMPLEMENTATION_SPECIFIC_DEFAULT" else escaped_slashes
        ),
        local_reply_config=parse_local_reply_config(node.child("local_reply_config")),
        strip_matching_host_port=node.get("strip_matching_host_port"),
        strip_any_host_port=node.get("strip_any_host_port"),
        strip_trailing_host_dot=node.get("strip_trailing_host_dot"),
        rds=_parse_rds(node.child("rds")),
    )


def _parse_rds(node: Node | None) -> Rds | None:
    if node is None:
        return None
    from sidecar.config.config_source import parse_config_source  # only for those who use it

    name, source = node.get("route_config_name"), node.child("config_source")
    if source is None:
        return None  # that it is required is one of Envoy's constraints
    if not name:
        node.refuse("is required", "route_config_name", "name the route configuration")
    return Rds(parse_config_source(source), name)


def parse_http_filters(nodes: Iterable[Node]) -> tuple[HttpFilter, ...]:
    """The filters of one chain. The router must be the last of them, and be nowhere else."""
    nodes = left_out.kept(nodes, left_out.HTTP_FILTERS)
    filters = tuple(map(parse_http_filter, nodes))
    for position, node in enumerate(nodes):
        if filters[position].discovery is not None:
            if position == len(nodes) - 1:
                node.refuse("is the last of its filter chain, and not the router", do="end the chain with the router")
            continue
        extension = node.extension(known=HTTP_FILTERS)
        if extension is None:
            continue
        last, is_router = position == len(nodes) - 1, extension.type_name == router.TYPE
        if is_router and not last:
            node.refuse("is a terminal filter, and others follow it", do="put it last in its filter chain")
        elif last and not is_router:
            node.refuse("is the last of its filter chain, and not the router", do="end the chain with the router")
        elif is_router and node.has("disabled"):
            node.refuse("must not be set for the last filter", "disabled", "remove it")
    return filters


def _check_request_id(node: Node | None) -> None:
    extension = None if node is None else node.extension(known=(_UUID,))
    if extension is not None:
        extension.ignore("pack_trace_reason", "nothing is traced")
        extension.ignore("use_request_id_for_trace_sampling", "nothing is traced")


def _parse_access_log_options(node: Node | None) -> AccessLogOptions:
    if node is None:
        return _NO_ACCESS_LOG_OPTIONS
    return AccessLogOptions(
        node.get("flush_access_log_on_new_request"), seconds(node, "access_log_flush_interval", 0.0)
    )


def _parse_internal_address_config(node: Node | None) -> InternalAddressConfig:
    if node is None:
        return _NO_INTERNAL_ADDRESSES
    return InternalAddressConfig(node.get("unix_sockets"), parse_cidr_ranges(node.children("cidr_ranges")))


def _parse_upgrade_configs(nodes: Iterable[Node]) -> tuple[UpgradeConfig, ...]:
    upgrades: dict[bytes, UpgradeConfig] = {}
    for node in nodes:
        upgrade_type = node.get("upgrade_type").lower().encode()
        if upgrade_type in upgrades:
            node.refuse("names an upgrade that another one names too", "upgrade_type", "keep one of them")
        filters = node.children("filters")
        for one in filters:
            if one.which("config_type") == "config_discovery":
                one.refuse("is discovered, which is not implemented by Mizzen for upgrades", do="use typed_config")
        upgrades[upgrade_type] = UpgradeConfig(
            upgrade_type, parse_http_filters(filters) if filters else None, node.wrapped("enabled", True)
        )
    return tuple(upgrades.values())


_NO_INTERNAL_ADDRESSES = InternalAddressConfig()
_NO_ROUTES = RouteConfiguration("", ())
