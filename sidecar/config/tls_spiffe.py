"""The certificate validator for SPIFFE: a set of roots for each trust domain.

`envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig`. Bundles are read by the transport, which watches
their files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.config.fields import Node
from sidecar.config.tls_sources import DataSource, parse_data_source

SPIFFE_VALIDATOR: Final = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"

_NAME: Final = "envoy.tls.cert_validator.spiffe"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SpiffeValidator:
    """Where the roots of each trust domain are.

    `trust_domains` are pairs of a name and its bundle in PEM (certificates, and revocation lists if any); or else
    `trust_bundles` has those of all in JSON: `{"trust_domains": {NAME: {"keys": [...]}}}`, with the keys of SPIFFE bundles.
    """

    trust_domains: tuple[tuple[str, DataSource], ...] = ()
    trust_bundles: DataSource | None = None

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """All that is to be read."""
        found = tuple(source for _, source in self.trust_domains)
        return found if self.trust_bundles is None else (*found, self.trust_bundles)


def parse_custom_validator(validation: Node) -> SpiffeValidator | None:
    """The `custom_validator_config` of a `CertificateValidationContext`."""
    node = validation.child("custom_validator_config")
    if node is None:
        return None
    if node.get("name") != _NAME:
        node.refuse("is no certificate validator that Mizzen has", "name", f"name it {_NAME}, as Envoy does")
    extension = node.extension(known=(SPIFFE_VALIDATOR,))
    if extension is None:
        return None
    bundles = extension.child("trust_bundles")
    domains: dict[str, DataSource] = {}
    for domain in extension.children("trust_domains"):
        name = domain.get("name")
        source = parse_data_source(domain, "trust_bundle")
        if not _TRUST_DOMAIN.fullmatch(name):
            domain.refuse(f"{name!r} is no trust domain", "name", "use lower-case letters, digits, '.', '-' and '_'")
        elif name in domains:
            domain.refuse(f"has the second bundle of {name}", "name", "put all of its roots into one")
        elif source is not None:
            domains[name] = source
        elif not domain.has("trust_bundle"):
            domain.refuse("is required", "trust_bundle", "name a file, or write it inline")
    if bundles is not None and domains:
        extension.refuse("is set together with trust_domains", "trust_bundles", "keep one of them")
    elif bundles is None and not extension.has("trust_domains"):
        extension.refuse("names no trust domain", "trust_domains", "add one, or set trust_bundles")
    return SpiffeValidator(tuple(domains.items()), parse_data_source(extension, "trust_bundles"))
