"""TLS to the endpoints of a cluster.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from controlplane.model.proxy import Proxy
from controlplane.model.values import is_ip

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
SDS_CLUSTER = "sds-grpc"
ISTIO_ALPN = ("istio-peer-exchange", "istio")
ISTIO_ALPN_H2 = ("istio-peer-exchange", "istio", "h2")


def has_identity(proxy: Proxy) -> bool:
    """Whether an agent beside the proxy serves its certificates over SDS: it says so (`SDS_AGENT`), or is Istio's."""
    return bool(proxy.metadata.get("SDS_AGENT") or proxy.metadata.get("ISTIO_VERSION"))


def apply_tls(
    cluster: Any,
    tls: Any,
    proxy: Proxy,
    *,
    http2: bool,
    server_name: str,
    service_names: Sequence[str],
    verify_by_default: bool = True,
) -> bool:
    """Sets the transport socket. False if the settings cannot be met: mutual TLS of a proxy without an identity.

    ``server_name`` and ``service_names`` (subject alternative names) are the cluster's own, for ISTIO_MUTUAL.
    Without ``verify_by_default`` a server's certificate is verified only where `caCertificates` says by what.
    """
    mode = str(tls.mode or "DISABLE") if tls is not None else "DISABLE"
    if mode == "DISABLE":
        return True
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    names = tuple(tls.subject_alt_names or ()) or (tuple(service_names) if mode == "ISTIO_MUTUAL" else ())
    if mode == "ISTIO_MUTUAL":
        if not has_identity(proxy):
            return False
        _identity(common, names)
        context.sni = tls.sni or server_name
        common.alpn_protocols.extend(ISTIO_ALPN_H2 if http2 else ISTIO_ALPN)
    else:
        _files(common, tls, mode, names, verify_by_default)
        context.sni = tls.sni or ""
        if http2:
            common.alpn_protocols.append("h2")
    cluster.transport_socket.name = "envoy.transport_sockets.tls"
    cluster.transport_socket.typed_config.Pack(context)
    return True


def needs_server_name(tls: Any, *, verify_by_default: bool = True) -> bool:
    """Whether the name to send and to verify is that of each request: TLS of its own without names."""
    if tls is None or str(tls.mode) not in ("SIMPLE", "MUTUAL"):
        return False
    verified = bool(tls.ca_certificates or tls.credential_name or verify_by_default) and not tls.insecure_skip_verify
    return verified and not tls.sni and not tls.subject_alt_names


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


def apply_proxy_protocol(cluster: Any, settings: Any) -> None:
    """Puts the PROXY protocol's head before each connection, whatever follows it."""
    if settings is None:
        return
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
