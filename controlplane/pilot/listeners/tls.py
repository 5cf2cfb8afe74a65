"""TLS settings of servers become Envoy's transport sockets.

Source: Istio's reference, "Gateway", ServerTLSSettings; names of secrets as in Istio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from controlplane.model.values import is_ip
from controlplane.pilot.client_tls import sds_of_agent, sds_over_ads
from controlplane.pilot.secrets import CA_SUFFIX, PREFIX

WORKLOAD_CERTIFICATE = "default"
ROOT_CERTIFICATE = "ROOTCA"
HTTP_ALPN = ("h2", "http/1.1")

_VERSIONS = {
    "TLSV1_0": common_pb2.TlsParameters.TLSv1_0,
    "TLSV1_1": common_pb2.TlsParameters.TLSv1_1,
    "TLSV1_2": common_pb2.TlsParameters.TLSv1_2,
    "TLSV1_3": common_pb2.TlsParameters.TLSv1_3,
}
_SAN_TYPES = (common_pb2.SubjectAltNameMatcher.DNS, common_pb2.SubjectAltNameMatcher.URI)


def server_transport_socket(tls: Any, alpn: Sequence[str] = ()) -> Any:
    """The `TransportSocket` of a server that opens TLS connections."""
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(alpn)
    parameters = common.tls_params
    parameters.tls_minimum_protocol_version = _VERSIONS.get(tls.min_protocol_version, common_pb2.TlsParameters.TLSv1_2)
    if tls.max_protocol_version in _VERSIONS:
        parameters.tls_maximum_protocol_version = _VERSIONS[tls.max_protocol_version]
    parameters.cipher_suites.extend(tls.cipher_suites)
    wants_client = tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
    context.require_client_certificate.value = wants_client and tls.mode != "OPTIONAL_MUTUAL"
    _certificates(tls, common)
    if wants_client:
        _validation(tls, common)
    socket = base_pb2.TransportSocket(name="envoy.transport_sockets.tls")
    socket.typed_config.Pack(context, deterministic=True)
    return socket


def _certificates(tls: Any, common: Any) -> None:
    if tls.mode == "ISTIO_MUTUAL":
        common.tls_certificate_sds_secret_configs.append(sds_of_agent(WORKLOAD_CERTIFICATE))
        return
    for name in tls.credentials:
        common.tls_certificate_sds_secret_configs.append(sds_over_ads(f"{PREFIX}{name}"))
    for files in () if tls.credentials else tls.tls_certificates or (tls,):
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = files.server_certificate
        certificate.private_key.filename = files.private_key


def _validation(tls: Any, common: Any) -> None:
    """Which clients are let in: by roots, and where they are given by names and hashes of their certificates."""
    combined = common.combined_validation_context
    context = combined.default_validation_context
    context.verify_certificate_spki.extend(tls.verify_certificate_spki)
    context.verify_certificate_hash.extend(tls.verify_certificate_hash)
    for name in tls.subject_alt_names:
        for kind in (common_pb2.SubjectAltNameMatcher.IP_ADDRESS,) if is_ip(name) else _SAN_TYPES:
            matcher = string_pb2.StringMatcher(exact=name)
            context.match_typed_subject_alt_names.add(san_type=kind, matcher=matcher)
    if tls.mode == "ISTIO_MUTUAL":
        combined.validation_context_sds_secret_config.CopyFrom(sds_of_agent(ROOT_CERTIFICATE))
    elif tls.ca_cert_credential_name or tls.credentials:
        name = (tls.ca_cert_credential_name or "").removesuffix(CA_SUFFIX) or tls.credentials[0]
        roots = f"{PREFIX}{name}{CA_SUFFIX}"
        combined.validation_context_sds_secret_config.CopyFrom(sds_over_ads(roots))
    else:
        alone = common_pb2.CertificateValidationContext()
        alone.CopyFrom(context)
        # Set even if it were empty, which proxies refuse: without roots they let in clients with any certificate.
        alone.trusted_ca.filename = tls.roots_file
        if tls.ca_crl:
            alone.crl.filename = tls.ca_crl
        common.validation_context.CopyFrom(alone)
