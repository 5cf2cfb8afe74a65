"""How a workload's sidecar takes connections by its PeerAuthentication: which filter chains there are, and their TLS.

Source: https://istio.io/latest/docs/concepts/security/#permissive-mode. Mutual TLS of the mesh is told from an application's own
TLS by the application protocols that sidecars offer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from controlplane.model.mesh_config import MeshConfig
from controlplane.model.service import PortProtocol
from controlplane.pilot.client_tls import sds_of_agent
from controlplane.pilot.security.peer_authentication import Mode

MESH_HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
MESH_TCP_ALPN = ("istio-peer-exchange", "istio")
PLAIN_HTTP = ("http/1.0", "http/1.1", "h2c")
"""What the HTTP inspector finds in plain text, as filter chains match it."""

_TLS = "tls"
_PLAIN = "raw_buffer"
_HTTP_SERVED = ("h2", "http/1.1")
_TCP_SERVED = ("istio-peer-exchange", "h2", "http/1.1")
_VERSIONS = {
    "TLSV1_2": common_pb2.TlsParameters.TLSv1_2,
    "TLSV1_3": common_pb2.TlsParameters.TLSv1_3,
}


class WayIn(NamedTuple):
    """One way into a port: for requests (``http``) or for connections, opened as mutual TLS (``mutual``) or as it is.
    ``match`` are fields of `FilterChainMatch`.
    """

    http: bool
    mutual: bool
    match: Mapping[str, Any]


def ways_in(protocol: PortProtocol, mode: Mode) -> Iterator[WayIn]:
    """The ways into a port of that protocol."""
    if protocol is PortProtocol.AUTO:
        yield from _of_any_protocol(mode)
        return
    http = protocol.is_http
    if mode is Mode.DISABLE:
        yield WayIn(http, False, {})
    elif mode is Mode.STRICT:
        yield WayIn(http, True, {"transport_protocol": _TLS})
    elif http:
        # An application of plain HTTP has no TLS of its own: gRPC clients without a proxy offer no protocols of the mesh.
        yield WayIn(True, True, {"transport_protocol": _TLS})
        yield WayIn(True, False, {"transport_protocol": _PLAIN})
    else:
        protocols = (*MESH_TCP_ALPN, *MESH_HTTP_ALPN)
        yield WayIn(False, True, {"transport_protocol": _TLS, "application_protocols": protocols})
        yield WayIn(False, False, {"transport_protocol": _PLAIN})
        yield WayIn(False, False, {"transport_protocol": _TLS})  # the application's own


def _of_any_protocol(mode: Mode) -> Iterator[WayIn]:
    """Requests are told from other connections: in plain text by what they begin with, in mutual TLS by what is offered."""
    if mode is Mode.DISABLE:
        # An application's own TLS offers http/1.1, too, which is found where another port has TLS looked for.
        yield WayIn(True, False, {"transport_protocol": _PLAIN, "application_protocols": PLAIN_HTTP})
        yield WayIn(False, False, {"transport_protocol": _PLAIN})
        yield WayIn(False, False, {})
        return
    yield WayIn(True, True, {"transport_protocol": _TLS, "application_protocols": MESH_HTTP_ALPN})
    if mode is Mode.STRICT:
        yield WayIn(False, True, {"transport_protocol": _TLS})
        return
    yield WayIn(False, True, {"transport_protocol": _TLS, "application_protocols": MESH_TCP_ALPN})
    yield WayIn(True, False, {"transport_protocol": _PLAIN, "application_protocols": PLAIN_HTTP})
    yield WayIn(False, False, {"transport_protocol": _PLAIN})
    yield WayIn(False, False, {"transport_protocol": _TLS})


def trust_domains(mesh: MeshConfig) -> tuple[str, ...]:
    """The trust domain of the mesh and those that stand for it."""
    return tuple(dict.fromkeys((mesh.trust_domain, *mesh.trust_domain_aliases)))


def mutual_tls(mesh: MeshConfig, *, http: bool) -> Any:
    """The `TransportSocket` of a way in for the mesh's own: certificates are of the agent, and clients need one of the mesh's
    trust domains. `meshMTLS` says what TLS has at least.
    """
    context = tls_pb2.DownstreamTlsContext()
    context.require_client_certificate.value = True
    common = context.common_tls_context
    common.alpn_protocols.extend(_HTTP_SERVED if http else _TCP_SERVED)
    told = mesh.mesh_mtls
    parameters = common.tls_params
    parameters.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_2
    if told is not None:
        parameters.tls_minimum_protocol_version = _VERSIONS.get(
            told.min_protocol_version, common_pb2.TlsParameters.TLSv1_2
        )
        parameters.cipher_suites.extend(told.cipher_suites)
        parameters.ecdh_curves.extend(told.ecdh_curves)
    common.tls_certificate_sds_secret_configs.append(sds_of_agent("default"))
    combined = common.combined_validation_context
    for domain in trust_domains(mesh):
        combined.default_validation_context.match_typed_subject_alt_names.add(
            san_type=common_pb2.SubjectAltNameMatcher.URI,
            matcher=string_pb2.StringMatcher(prefix=f"spiffe://{domain}/"),
        )
    combined.validation_context_sds_secret_config.CopyFrom(sds_of_agent("ROOTCA"))
    socket = base_pb2.TransportSocket(name="envoy.transport_sockets.tls")
    socket.typed_config.Pack(context, deterministic=True)
    return socket
