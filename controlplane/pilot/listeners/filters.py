"""Network filters that end a filter chain: the HTTP connection manager and the TCP proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.core.v3 import config_source_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from controlplane.model.service import PortProtocol
from controlplane.pilot.listeners.access_logs import CLIENT, SERVER, access_logs
from controlplane.pilot.routes.filter_config import SET_FILTER_STATE
from controlplane.pilot.scope import Scope
from controlplane.pilot.security.filters import http_filters
from controlplane.pilot.security.policies import NO_POLICIES, Policies

HTTP_CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
SERVER_NAME = "istio-envoy"  # what Istio's proxies say in `server`

_Manager = hcm_pb2.HttpConnectionManager


def connection_manager(
    scope: Scope,
    stat_prefix: str,
    *,
    inbound: bool = False,
    edge: bool = False,
    protocol: PortProtocol = PortProtocol.HTTP,
    policies: Policies = NO_POLICIES,
) -> Any:
    """An `HttpConnectionManager` without routes: give it `rds` or `route_config`, and pack it with `http_filter`.

    With ``inbound`` it stands before the workload's own application, with ``edge`` it is a gateway's, which trusts nothing
    that clients say of themselves; ``policies`` say who may enter. Where ``protocol`` is gRPC, calls are counted; where it
    is gRPC-Web, they are made gRPC.
    """
    manager = _Manager(
        stat_prefix=stat_prefix,
        server_name=SERVER_NAME,
        access_log=access_logs(scope, SERVER if inbound else CLIENT),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
    )
    manager.stream_idle_timeout.FromNanoseconds(0)
    manager.use_remote_address.value = edge
    _normalize(manager, scope.mesh)
    if inbound:
        manager.forward_client_cert_details = _Manager.APPEND_FORWARD
    elif edge:
        manager.forward_client_cert_details = _Manager.SANITIZE_SET
        _stand_behind(manager, scope.mesh.default_config.gateway_topology)
    if inbound or edge:
        details = manager.set_current_client_cert_details
        details.subject.value = details.dns = details.uri = True
    manager.http_filters.extend(http_filters(scope, policies))
    if inbound and protocol is PortProtocol.GRPC_WEB:
        _add_filter(manager, "envoy.filters.http.grpc_web", grpc_web_pb2.GrpcWeb())
    if protocol in (PortProtocol.GRPC, PortProtocol.GRPC_WEB):
        _add_filter(manager, "envoy.filters.http.grpc_stats", grpc_stats_pb2.FilterConfig(emit_filter_state=True))
    if not inbound:
        # Routes switch these on that have faults or a policy for origins; all other requests pass by them.
        _add_filter(manager, "envoy.filters.http.fault", fault_pb2.HTTPFault(), disabled=True)
        _add_filter(manager, "envoy.filters.http.cors", cors_pb2.Cors(), disabled=True)
        if scope.proxy.has_identity:
            # Last, so that routes of another filter's choice say it for themselves.
            _add_filter(manager, SET_FILTER_STATE, set_filter_state_pb2.Config(), disabled=True)
    _add_filter(manager, "envoy.filters.http.router", router_pb2.Router())
    return manager


def _add_filter(manager: Any, name: str, config: Any, *, disabled: bool = False) -> None:
    manager.http_filters.add(name=name, disabled=disabled).typed_config.Pack(config, deterministic=True)


def use_rds(manager: Any, name: str) -> Any:
    """Let a connection manager subscribe to a route configuration, over the stream that brought it."""
    manager.rds.route_config_name = name
    source = manager.rds.config_source
    source.ads.SetInParent()
    source.resource_api_version = config_source_pb2.ApiVersion.V3
    source.initial_fetch_timeout.FromNanoseconds(0)
    return manager


def http_filter(manager: Any) -> Any:
    """The network filter of a connection manager."""
    made = components.Filter(name=HTTP_CONNECTION_MANAGER)
    made.typed_config.Pack(manager, deterministic=True)
    return made


def tcp_filter(
    scope: Scope,
    clusters: Sequence[tuple[str, int]],
    stat_prefix: str = "",
    settings: Any = None,
    *,
    inbound: bool = False,
) -> Any:
    """The network filter of a TCP proxy to one cluster, or to several by their weights. ``settings`` are
    Istio's TCPSettings or None: how long a connection may be idle (without them an hour, Envoy's default) and live.
    """
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=stat_prefix or clusters[0][0], access_log=access_logs(scope, SERVER if inbound else CLIENT)
    )
    weighted = [(name, weight) for name, weight in clusters if weight > 0]
    if len(clusters) == 1 or len(weighted) == 1:
        proxy.cluster = (weighted or list(clusters))[0][0]
    else:
        for name, weight in weighted:
            proxy.weighted_clusters.clusters.add(name=name, weight=weight)
    if settings is not None and settings.idle_timeout is not None:
        proxy.idle_timeout.FromNanoseconds(round(settings.idle_timeout * 1e9))
    if settings is not None and settings.max_connection_duration is not None:
        proxy.max_downstream_connection_duration.FromNanoseconds(round(settings.max_connection_duration * 1e9))
    made = components.Filter(name=TCP_PROXY)
    made.typed_config.Pack(proxy, deterministic=True)
    return made


def _stand_behind(manager: Any, topology: Any) -> None:
    """What stands in front of a gateway, and is believed (`gatewayTopology`)."""
    if topology is None:
        return
    manager.xff_num_trusted_hops = topology.num_trusted_proxies or 0
    if topology.forward_client_cert_details != "UNDEFINED":
        manager.forward_client_cert_details = _Manager.ForwardClientCertDetails.Value(
            topology.forward_client_cert_details
        )


def _normalize(manager: Any, mesh: Any) -> None:
    """`pathNormalization` of the mesh; Istio's default is BASE."""
    chosen = mesh.path_normalization
    how = "DEFAULT" if chosen is None else chosen.normalization
    if how == "NONE":
        return
    manager.normalize_path.value = True
    if how in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        manager.merge_slashes = True
    if how == "DECODE_AND_MERGE_SLASHES":
        manager.path_with_escaped_slashes_action = _Manager.UNESCAPE_AND_FORWARD
