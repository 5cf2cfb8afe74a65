"""Transport sockets with TLS: `envoy.extensions.transport_sockets.tls.v3` UpstreamTlsContext and DownstreamTlsContext."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sidecar.config.core_types import RAW_BUFFER
from sidecar.config.fields import Node
from sidecar.config.left_out import PEER_EXCHANGE
from sidecar.config.tls_parameters import DOWNSTREAM_TLS_PARAMETERS, TlsParameters, parse_tls_parameters
from sidecar.config.tls_secrets import (
    NO_VALIDATION,
    Certificates,
    CertificateValidationContext,
    Validation,
    parse_secret_reference,
    parse_tls_certificate,
    parse_validation_context,
)

DOWNSTREAM_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
UPSTREAM_PROXY_PROTOCOL: Final = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

_SESSION_TIMEOUT = 7200.0


@dataclass(frozen=True, slots=True)
class CommonTlsContext:
    """What both sides have.

    `validation_context` None asks nothing of the peer. With `default_validation_context` the two are combined:
    `validation_context` is a reference then, and what it leaves open the default says.
    """

    tls_params: TlsParameters = DOWNSTREAM_TLS_PARAMETERS
    tls_certificates: tuple[Certificates, ...] = ()
    validation_context: Validation | None = None
    default_validation_context: CertificateValidationContext | None = None
    alpn_protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DownstreamTlsContext:
    """TLS of a filter chain. `place` is where it stands in the configuration, for problems that files bring later.

    `stateless_resumption` are session tickets.
    """

    common_tls_context: CommonTlsContext
    require_client_certificate: bool = False
    require_sni: bool = False
    stateless_resumption: bool = True
    full_scan_certs_on_sni_mismatch: bool = False
    prefer_client_ciphers: bool = False
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class UpstreamTlsContext:
    """TLS to the endpoints of a cluster.

    `sni` is empty when none is sent; `auto_host_sni` takes the endpoint's hostname. `auto_sni_san_validation` asks that
    the certificate is for the name that was sent. `max_session_keys` is how many sessions are kept, 0 for none.
    """

    common_tls_context: CommonTlsContext
    sni: str = ""
    auto_host_sni: bool = False
    auto_sni_san_validation: bool = False
    max_session_keys: int = 1
    enforce_rsa_key_usage: bool = False
    place: str = field(default="", compare=False)


def parse_downstream_transport_socket(node: Node) -> DownstreamTlsContext | None:
    """The `transport_socket` of a filter chain; None for the plain one."""
    socket = node.child("transport_socket")
    extension = None if socket is None else socket.extension(known=(RAW_BUFFER, DOWNSTREAM_TLS))
    if extension is None or extension.type_name != DOWNSTREAM_TLS:
        return None
    return parse_downstream_tls_context(extension)


def parse_upstream_transport_socket(node: Node) -> UpstreamTlsContext | None:
    """The `transport_socket` of a cluster, or the one inside of it that a PROXY header goes before; None for the plain one."""
    extension = _upstream_extension(node)
    if extension is not None and extension.type_name == UPSTREAM_PROXY_PROTOCOL:
        inner = extension.child("transport_socket")
        extension = None if inner is None else inner.extension(known=(RAW_BUFFER, UPSTREAM_TLS))
    if extension is None or extension.type_name != UPSTREAM_TLS:
        return None
    return parse_upstream_tls_context(extension)


def parse_upstream_proxy_protocol(node: Node) -> str:
    """The version of the PROXY header that the `transport_socket` of a cluster begins with: V1, V2, or empty for none."""
    extension = _upstream_extension(node)
    if extension is None or extension.type_name != UPSTREAM_PROXY_PROTOCOL:
        return ""
    config = extension.child("config")
    return "V1" if config is None else config.enum("version")


def _upstream_extension(node: Node) -> Node | None:
    socket = node.child("transport_socket")
    return None if socket is None else socket.extension(known=(RAW_BUFFER, UPSTREAM_TLS, UPSTREAM_PROXY_PROTOCOL))


def parse_downstream_tls_context(node: Node) -> DownstreamTlsContext:
    """`DownstreamTlsContext`."""
    common = _parse_common(node, upstream=False)
    required = node.wrapped("require_client_certificate", False)
    validation = common.validation_context
    if not common.tls_certificates:
        node.refuse("has no certificate", "common_tls_context.tls_certificates", "add one")
    inside = validation if common.default_validation_context is None else common.default_validation_context
    if isinstance(inside, CertificateValidationContext):
        refusable = isinstance(validation, CertificateValidationContext)
        if inside.trust_chain_verification == "ACCEPT_UNTRUSTED":
            node.refuse(
                "ACCEPT_UNTRUSTED is not implemented by Mizzen for clients",
                "common_tls_context.validation_context.trust_chain_verification", "remove it",
            )  # fmt: skip
        elif refusable and not inside.trusts and (inside.verify_certificate_hash or inside.verify_certificate_spki):
            node.refuse(
                "client certificates are not checked by digest alone in Mizzen",
                "common_tls_context.validation_context", "add trusted_ca",
            )  # fmt: skip
    _refuse_session_options(node)
    policy = node.enum("ocsp_staple_policy")
    if policy == "MUST_STAPLE":
        node.refuse("MUST_STAPLE is not implemented by Mizzen", "ocsp_staple_policy", "use LENIENT_STAPLING")
    return DownstreamTlsContext(
        common,
        required,
        node.wrapped("require_sni", False),
        not node.get("disable_stateless_session_resumption"),
        node.wrapped("full_scan_certs_on_sni_mismatch", False),
        node.get("prefer_client_ciphers"),
        node.path,
    )


def _refuse_session_options(node: Node) -> None:
    if node.get("disable_stateful_session_resumption"):
        node.refuse(
            "sessions by number cannot be switched off in Mizzen", "disable_stateful_session_resumption", "remove it"
        )
    timeout = node.duration("session_timeout")
    if timeout is not None and timeout != _SESSION_TIMEOUT:
        node.refuse("another session timeout than 7200s is not implemented by Mizzen", "session_timeout", "remove it")


def parse_upstream_tls_context(node: Node) -> UpstreamTlsContext:
    """`UpstreamTlsContext`. Renegotiation is refused."""
    common = _parse_common(node, upstream=True)
    if len(common.tls_certificates) > 1:
        node.refuse("names several certificates", "common_tls_context.tls_certificates", "keep one, as Envoy demands")
    if node.get("allow_renegotiation"):
        node.refuse("is not implemented by Mizzen: renegotiation is not safe", "allow_renegotiation", "remove it")
    sni = node.get("sni")
    if len(sni) > 255:
        node.refuse("is longer than the 255 bytes that a server name may have", "sni", "shorten it")
    context = UpstreamTlsContext(
        common,
        sni,
        node.get("auto_host_sni"),
        node.get("auto_sni_san_validation"),
        node.wrapped("max_session_keys", 1),
        node.wrapped("enforce_rsa_key_usage", False),
        node.path,
    )
    if context.auto_sni_san_validation and common.validation_context is None:
        node.refuse("needs a trusted_ca: anybody could claim a name", "auto_sni_san_validation", "add one")
    return context


def _parse_common(node: Node, *, upstream: bool) -> CommonTlsContext:
    common = node.child("common_tls_context")
    if common is None:
        return CommonTlsContext(parse_tls_parameters(None, upstream=upstream))
    certificates: list[Certificates] = [parse_tls_certificate(one) for one in common.children("tls_certificates")]
    references = common.children("tls_certificate_sds_secret_configs")
    if certificates and references:
        common.refuse("is set together with tls_certificates", "tls_certificate_sds_secret_configs", "keep one")
    certificates += [parse_secret_reference(one, "TLS certificate secret") for one in references]
    validation, default = _parse_validation(common)
    parameters = common.child("tls_params")
    alpn = common.get("alpn_protocols")
    protocols = tuple(protocol for entry in alpn for protocol in entry.split(",") if protocol)
    if any(len(protocol.encode()) > 255 for protocol in protocols):
        common.refuse("has a name of more than 255 bytes", "alpn_protocols", "shorten it")
    return CommonTlsContext(
        parse_tls_parameters(parameters, upstream=upstream),
        tuple(certificates),
        validation,
        default,
        tuple(protocol for protocol in protocols if protocol != PEER_EXCHANGE),
    )


def _parse_validation(common: Node) -> tuple[Validation | None, CertificateValidationContext | None]:
    match common.which("validation_context_type"):
        case "validation_context":
            validation = common.child("validation_context")
            return (None if validation is None else parse_validation_context(validation)), None
        case "validation_context_sds_secret_config":
            reference = common.child("validation_context_sds_secret_config")
            if reference is not None:
                return parse_secret_reference(reference, "validation context secret"), None
        case "combined_validation_context":
            combined = common.child("combined_validation_context")
            if combined is not None:
                default, reference = (
                    combined.child("default_validation_context"),
                    combined.child("validation_context_sds_secret_config"),
                )
                return (
                    None if reference is None else parse_secret_reference(reference, "validation context secret"),
                    NO_VALIDATION if default is None else parse_validation_context(default, partial=True),
                )
    return None, None
