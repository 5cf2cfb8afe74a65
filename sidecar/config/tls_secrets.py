"""Keys, certificates and what certificates are checked against, and where they come from.

`envoy.extensions.transport_sockets.tls.v3`: TlsCertificate, CertificateValidationContext, Secret, SdsSecretConfig. Files
are named here and read by the transport, which watches them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, parse_string_matcher
from sidecar.config.tls_sources import DataSource, parse_data_source, watched_directory

if TYPE_CHECKING:
    from sidecar.config.config_source import ConfigSource
    from sidecar.config.tls_spiffe import SpiffeValidator

_TYPES_OF_SAN: Final = ("EMAIL", "DNS", "URI", "IP_ADDRESS")
_AT_ONCE: Final = "files are read at once"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate with what stands above it and its private key, or both in one `pkcs12`."""

    certificate_chain: DataSource | None = None
    private_key: DataSource | None = None
    pkcs12: DataSource | None = None
    password: DataSource | None = None

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Those that are set."""
        found = (self.certificate_chain, self.private_key, self.pkcs12, self.password)
        return tuple(source for source in found if source is not None)


@dataclass(frozen=True, slots=True)
class SubjectAltNameMatcher:
    """A condition on one subject alternative name; `san_type` is EMAIL, DNS, URI or IP_ADDRESS, empty for any."""

    san_type: str
    matcher: StringMatcher


@dataclass(frozen=True, slots=True)
class CertificateValidationContext:
    """What a peer's certificate must be.

    `verify_certificate_hash` are SHA-256 digests of certificates in lower-case hex, `verify_certificate_spki` those of
    public keys as bytes; one of either is enough. `trust_chain_verification` is VERIFY_TRUST_CHAIN or ACCEPT_UNTRUSTED.
    With `spiffe` each trust domain has roots of its own, and `trusted_ca` and `system_root_certs` mean nothing.
    """

    trusted_ca: DataSource | None = None
    system_root_certs: bool = False
    crl: DataSource | None = None
    only_verify_leaf_cert_crl: bool = False
    verify_certificate_spki: frozenset[bytes] = frozenset()
    verify_certificate_hash: frozenset[str] = frozenset()
    match_typed_subject_alt_names: tuple[SubjectAltNameMatcher, ...] = ()
    allow_expired_certificate: bool = False
    trust_chain_verification: str = "VERIFY_TRUST_CHAIN"
    spiffe: SpiffeValidator | None = None

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Those that are set."""
        roots: tuple[DataSource | None, ...] = (self.trusted_ca,) if self.spiffe is None else self.spiffe.sources
        return tuple(source for source in (*roots, self.crl) if source is not None)

    @property
    def trusts(self) -> bool:
        """Whether there are roots to verify chains against."""
        return self.trusted_ca is not None or self.system_root_certs or self.spiffe is not None

    @property
    def accepts_untrusted(self) -> bool:
        """Whether a peer that cannot be verified is taken nonetheless."""
        return self.trust_chain_verification == "ACCEPT_UNTRUSTED" and self.spiffe is None


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A secret by name: one in the file at `path`, which is watched; one that is discovered, if there is a `source`; else one of
    the bootstrap's.

    `watched_directory` is empty when the file itself is watched.
    """

    name: str
    path: str = ""
    watched_directory: str = ""
    source: ConfigSource | None = None


Certificates: TypeAlias = TlsCertificate | SecretReference
Validation: TypeAlias = CertificateValidationContext | SecretReference


@dataclass(frozen=True, slots=True)
class Secret:
    """A named secret: a certificate with its key, or a validation context."""

    name: str
    value: TlsCertificate | CertificateValidationContext


def parse_secret(node: Node) -> Secret:
    """`Secret`. Other kinds than certificates and validation contexts are not implemented."""
    name = node.get("name")
    match node.which("type"):
        case "tls_certificate":
            certificate = node.child("tls_certificate")
            value = TlsCertificate() if certificate is None else parse_tls_certificate(certificate)
            return Secret(name, value)
        case "validation_context":
            validation = node.child("validation_context")
            return Secret(name, NO_VALIDATION if validation is None else parse_validation_context(validation))
        case None:
            node.refuse("holds no secret", do="add a tls_certificate or a validation_context")
    return Secret(name, NO_VALIDATION)


def parse_static_secret(node: Node) -> Secret:
    """A `Secret` of the bootstrap, which others may refer to."""
    secret = parse_secret(node)
    kind = "TLS certificate secret" if isinstance(secret.value, TlsCertificate) else "validation context secret"
    node.context.declare("secret", secret.name, node)
    node.context.declare(kind, secret.name, node)
    return secret


def parse_tls_certificate(node: Node) -> TlsCertificate:
    """`TlsCertificate`."""
    watched = watched_directory(node)
    chain, key = parse_data_source(node, "certificate_chain", watched), parse_data_source(node, "private_key", watched)
    pkcs12, password = parse_data_source(node, "pkcs12", watched), parse_data_source(node, "password", watched)
    if pkcs12 is not None:
        for name in ("certificate_chain", "private_key"):
            if node.has(name):
                node.refuse("is set together with pkcs12", name, "keep one of them")
    elif node.has("private_key_provider"):
        pass  # refused by name, for nobody reads it
    else:
        for name, source in (("certificate_chain", chain), ("private_key", key)):
            if source is None and not node.has(name):
                node.refuse("is required", name, "name a file, or write it inline")
    return TlsCertificate(chain, key, pkcs12, password)


def parse_validation_context(node: Node, *, partial: bool = False) -> CertificateValidationContext:
    """`CertificateValidationContext`; a `partial` one is completed by another, which may bring the roots."""
    watched = watched_directory(node)
    roots = node.child("system_root_certs")
    matchers = [parse_san_matcher(one) for one in node.children("match_typed_subject_alt_names")]
    matchers += [
        SubjectAltNameMatcher("", parse_string_matcher(one)) for one in node.children("match_subject_alt_names")
    ]
    context = CertificateValidationContext(
        parse_data_source(node, "trusted_ca", watched),
        roots is not None,
        parse_data_source(node, "crl", watched),
        node.get("only_verify_leaf_cert_crl"),
        _parse_spkis(node),
        _parse_hashes(node),
        tuple(matchers),
        node.get("allow_expired_certificate"),
        node.enum("trust_chain_verification"),
        _parse_custom_validator(node),
    )
    if context.spiffe is not None:
        _refuse_beside_spiffe(node, context)
    if context.trusted_ca is not None and context.system_root_certs:
        node.refuse("is set together with trusted_ca", "system_root_certs", "keep one of them")
    if not context.trusts and not partial:
        if context.match_typed_subject_alt_names:
            field_name = "match_typed_subject_alt_names"
            if not node.has(field_name):
                field_name = "match_subject_alt_names"
            node.refuse("needs trusted_ca: anybody could claim a name", field_name, "add trusted_ca")
        if context.crl is not None or node.has("crl"):
            node.refuse("needs trusted_ca, whose authorities revoke", "crl", "add trusted_ca")
    return context


def _parse_custom_validator(node: Node) -> SpiffeValidator | None:
    if not node.has("custom_validator_config"):
        return None
    from sidecar.config.tls_spiffe import parse_custom_validator  # only for those who use it

    return parse_custom_validator(node)


def _refuse_beside_spiffe(node: Node, context: CertificateValidationContext) -> None:
    """What Envoy's validator passes over in silence."""
    for name in ("trusted_ca", "system_root_certs"):
        if node.has(name):
            node.ignore(name, "the roots are those of the trust domains in custom_validator_config")
    for name in ("verify_certificate_spki", "verify_certificate_hash"):
        if node.has(name):
            node.refuse("is not looked at where SPIFFE IDs are verified", name, "match a URI in its stead")
    if context.trust_chain_verification == "ACCEPT_UNTRUSTED":
        node.refuse("means nothing where SPIFFE IDs are verified", "trust_chain_verification", "remove it")
    for position, matcher in enumerate(context.match_typed_subject_alt_names):
        if matcher.san_type not in ("URI", ""):
            node.refuse(
                f"is for {matcher.san_type}, and only the URI is looked at where SPIFFE IDs are verified",
                f"match_typed_subject_alt_names[{position}].san_type", "make it URI",
            )  # fmt: skip


def parse_secret_reference(node: Node, kind: str) -> SecretReference:
    """`SdsSecretConfig`: a static secret of this `kind`, or one in a watched file."""
    name = node.get("name")
    source = node.child("sds_config")
    if source is None:
        if not name:
            node.refuse("is required to find a static secret", "name", "name one of static_resources.secrets")
        else:
            node.context.reference(kind, name, node, "name")
        return SecretReference(name)
    if source.enum("resource_api_version") == "V2":
        source.refuse("V2 is no more", "resource_api_version", "make it V3")
    match source.which("config_source_specifier"):
        case "path":
            source.ignore("initial_fetch_timeout", _AT_ONCE)
            return SecretReference(name, source.get("path"))
        case "path_config_source":
            source.ignore("initial_fetch_timeout", _AT_ONCE)
            path = source.child("path_config_source")
            if path is not None:
                return SecretReference(name, path.get("path"), watched_directory(path))
        case None:
            source.refuse("names no source", do="add path_config_source")
        case _:
            from sidecar.config.config_source import parse_config_source  # only for those who use it

            if not name:
                node.refuse("is required to ask for the secret", "name", "name it as the server does")
            return SecretReference(name, source=parse_config_source(source))
    return SecretReference(name)


def parse_san_matcher(node: Node) -> SubjectAltNameMatcher:
    """`tls.v3.SubjectAltNameMatcher`, all but `oid`."""
    san_type = node.enum("san_type")
    if san_type not in _TYPES_OF_SAN:
        node.refuse(f"{san_type} is not implemented by Mizzen", "san_type", f"use {', '.join(_TYPES_OF_SAN)}")
    return SubjectAltNameMatcher(san_type, parse_string_matcher(node.child("matcher")))


def _parse_hashes(node: Node) -> frozenset[str]:
    digests = node.get("verify_certificate_hash")
    for digest in digests:
        if not _SHA256.fullmatch(digest):
            node.refuse(
                f"{digest!r} is no SHA-256 digest",
                "verify_certificate_hash",
                "write 64 hex digits, colons between or not",
            )
    return frozenset(digest.replace(":", "").lower() for digest in digests)


def _parse_spkis(node: Node) -> frozenset[bytes]:
    digests = set()
    for text in node.get("verify_certificate_spki"):
        try:
            digest = base64.b64decode(text, validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) != 32:
            node.refuse(f"{text!r} is no SHA-256 digest in base64", "verify_certificate_spki", "correct it")
        digests.add(digest)
    return frozenset(digests)


NO_VALIDATION: Final = CertificateValidationContext()
"""Nothing is asked of the peer's certificate."""
