"""TLS to the endpoints of a cluster.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from controlplane.model.proxy import Proxy
from controlplane.model.service import PortProtocol, Service
from controlplane.model.values import is_ip

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
SDS_CLUSTER = "sds-grpc"
TCP_OFFERED = ("istio-peer-exchange", "istio")
EITHER_HTTP_OFFERED = ("istio-http/1.1", "istio-h2", "istio")
"""Where requests tell their protocol: servers find out which it is from the first bytes, as none of these is agreed on."""

_HTTP1_OFFERED = ("istio-http/1.1", "istio", "http/1.1")
_HTTP2_OFFERED = ("istio-h2", "istio", "h2")


def offered(protocol: PortProtocol, *, http2: bool, of_clients: bool) -> tuple[str, ...]:
    """What connections with the mesh's mutual TLS offer by ALPN, so that servers know whether they carry requests. Protocols
    ``of_clients`` are those that each request came by. Where the protocol is to be found out, the cluster says that it is
    not HTTP, and routes say for their requests that they are (`filter_config.apply_offer`).
    """
    if not protocol.is_http:
        return TCP_OFFERED
    if of_clients:
        return EITHER_HTTP_OFFERED
    return _HTTP2_OFFERED if http2 else _HTTP1_OFFERED


def apply_tls(
    cluster: Any,
    tls: Any,
    proxy: Proxy,
    *,
    http2: bool,
    protocols: Sequence[str],
    server_name: str,
    service_names: Sequence[str],
    entry: Service | None = None,
    verify_by_default: bool = True,
) -> bool:
    """Sets the transport socket. False if the settings cannot be met: mutual TLS of a proxy without an identity.

    ``protocols`` are offered by ALPN for ISTIO_MUTUAL; TLS of other modes offers HTTP/2 where it is spoken (``http2``).
    ``server_name`` and ``service_names`` (subject alternative names) are the cluster's own, for ISTIO_MUTUAL; for TLS of other
    modes, of the service ``entry`` its names are asked for that a ServiceEntry gives, and its host, if the settings say nothing.
    Without ``verify_by_default`` a server's certificate is verified only where `caCertificates` says by what.
    """
    mode = str(tls.mode or "DISABLE") if tls is not None else "DISABLE"
    if mode == "DISABLE":
        return True
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    pinned = entry_names(entry)
    names = tuple(tls.subject_alt_names or ()) or (tuple(service_names) if mode == "ISTIO_MUTUAL" else pinned)
    if mode == "ISTIO_MUTUAL":
        if not proxy.has_identity:
            return False
        # Both ends are the mesh's own; by themselves proxies would offer TLS 1.2 alone.
        common.tls_params.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_2
        common.tls_params.tls_maximum_protocol_version = common_pb2.TlsParameters.TLSv1_3
        _identity(common, names)
        context.sni = tls.sni or server_name
        common.alpn_protocols.extend(protocols)
    else:
        _files(common, tls, mode, names, verify_by_default)
        named = entry is not None and pinned and not tls.subject_alt_names and not entry.wildcard
        context.sni = tls.sni or (entry.hostname if entry is not None and named else "")
        if http2:
            common.alpn_protocols.append("h2")
    cluster.transport_socket.name = "envoy.transport_sockets.tls"
    cluster.transport_socket.typed_config.Pack(context)
    return True


def entry_names(service: Service | None) -> tuple[str, ...]:
    """The subject alternative names that a ServiceEntry says its servers have."""
    if service is None or all(origin.kind != "ServiceEntry" for origin in service.origins):
        return ()
    return service.subject_alt_names


def needs_server_name(tls: Any, service: Service, *, verify_by_default: bool = True) -> bool:
    """Whether the name to send and to verify is that of each request: TLS of its own without names."""
    if tls is None or str(tls.mode) not in ("SIMPLE", "MUTUAL"):
        return False
    verified = bool(tls.ca_certificates or tls.credential_name or verify_by_default) and not tls.insecure_skip_verify
    return verified and not tls.sni and not tls.subject_alt_names and not entry_names(service)


def has_no_server_name(tls: Any) -> bool:
    """Whether TLS of its own is asked for, and no name to send."""
    return tls is not None and str(tls.mode) in ("SIMPLE", "MUTUAL") and not tls.sni


def _files(common: Any, tls: Any, mode: str, names: Sequence[str], verify_by_default: bool) -> None:
    if tls.credential_name:
        if mode == "MUTUAL":
            common.tls_certificate_sds_secret_configs.append(sds_over_ads(f"kubernetes://{tls.credential_name}"))
        if not tls.insecure_skip_verify:
            combined = common.combined_validation_context
            _subject_alt_names(combined.default_validation_context, names)
            combined.validation_context_sds_secret_config.CopyFrom(
                sds_over_ads(f"kubernetes://{tls.credential_name}-cacert")
            )
        return
    if mode == "MUTUAL":
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = tls.client_certificate or ""
        certificate.private_key.filename = tls.private_key or ""
    if tls.insecure_skip_verify or not (tls.ca_certificates or verify_by_default):
        return
    _subject_alt_names(common.validation_context, names)
    common.validation_context.trusted_ca.filename = tls.ca_certificates or SYSTEM_ROOTS
    if tls.ca_crl:
        common.validation_context.crl.filename = tls.ca_crl


def _identity(common: Any, names: Sequence[str]) -> None:
    common.tls_certificate_sds_secret_configs.append(sds_of_agent("default"))
    combined = common.combined_validation_context
    _subject_alt_names(combined.default_validation_context, names)
    combined.validation_context_sds_secret_config.CopyFrom(sds_of_agent("ROOTCA"))


def _subject_alt_names(context: Any, names: Sequence[str]) -> None:
    context.SetInParent()
    for name in names:
        matcher = context.match_typed_subject_alt_names.add()
        if is_ip(name):
            matcher.san_type = common_pb2.SubjectAltNameMatcher.IP_ADDRESS
        else:
            uri = "://" in name
            matcher.san_type = common_pb2.SubjectAltNameMatcher.URI if uri else common_pb2.SubjectAltNameMatcher.DNS
        matcher.matcher.exact = name


def sds_of_agent(name: str) -> Any:
    """A secret that the agent beside the proxy has: the workload's own certificate, or the mesh's roots."""
    config = secret_pb2.SdsSecretConfig(name=name)
    source = config.sds_config
    source.resource_api_version = 2
    api = source.api_config_source
    api.api_type = api.GRPC
    api.transport_api_version = 2
    api.set_node_on_first_message_only = True
    api.grpc_services.add().envoy_grpc.cluster_name = SDS_CLUSTER
    return config


def sds_over_ads(name: str) -> Any:
    """A secret that comes over the stream that brought what names it."""
    config = secret_pb2.SdsSecretConfig(name=name)
    config.sds_config.ads.SetInParent()
    config.sds_config.resource_api_version = 2
    return config


def only_where_taken(cluster: Any, metadata: Mapping[str, str]) -> None:
    """A cluster's transport socket is for endpoints with this metadata; connections to all others are plain."""
    taken = cluster.transport_socket_matches.add(name=f"tlsMode-{metadata['tlsMode']}")
    taken.match.update(metadata)
    taken.transport_socket.CopyFrom(cluster.transport_socket)
    cluster.ClearField("transport_socket")
    plain = cluster.transport_socket_matches.add(name="tlsMode-disabled")
    plain.match.SetInParent()
    plain.transport_socket.name = "envoy.transport_sockets.raw_buffer"
    plain.transport_socket.typed_config.Pack(raw_buffer_pb2.RawBuffer())


def apply_proxy_protocol(cluster: Any, settings: Any) -> None:
    """Puts the PROXY protocol's head before each connection, whatever follows it."""
    if settings is None:
        return
    for each in cluster.transport_socket_matches:
        _begin_with_proxy_protocol(each, settings)
    if not cluster.transport_socket_matches:
        _begin_with_proxy_protocol(cluster, settings)


def _begin_with_proxy_protocol(cluster: Any, settings: Any) -> None:
    outer = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport()
    outer.config.version = outer.config.V2 if str(settings.version) == "V2" else outer.config.V1
    if cluster.HasField("transport_socket"):
        outer.transport_socket.CopyFrom(cluster.transport_socket)
    else:
        outer.transport_socket.name = "envoy.transport_sockets.raw_buffer"
        outer.transport_socket.typed_config.Pack(raw_buffer_pb2.RawBuffer())
    cluster.transport_socket.Clear()
    cluster.transport_socket.name = "envoy.transport_sockets.upstream_proxy_protocol"
    cluster.transport_socket.typed_config.Pack(outer)
