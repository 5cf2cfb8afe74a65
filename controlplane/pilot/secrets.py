"""Secrets of the mesh's own resources as proxies ask for them: what `credentialName` names, and nothing else.

Names as in Istio: `kubernetes://NAME` is a certificate with its key, `kubernetes://NAME-cacert` the roots for its clients.
Source: Istio's reference, "Gateway", ServerTLSSettings.credentialName. They go over authenticated connections alone, which is
for those to see to who send them.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.model.encoded import encode
from controlplane.model.resource import Resource
from controlplane.pilot.scope import Generated, Scope

PREFIX = "kubernetes://"
CA_SUFFIX = "-cacert"

_CERTIFICATE = (("tls.crt", "tls.key"), ("cert", "key"))  # of Secrets of type kubernetes.io/tls, and of generic ones
_ROOTS = ("ca.crt", "cacert")
_REVOKED = ("ca.crl", "crl")


def secrets(scope: Scope) -> Iterator[Generated]:
    """The secrets that the proxies of a scope need, from Secrets of their own namespace: those of others are not theirs."""
    for name in sorted(_wanted(scope)):
        found = scope.secret(name)
        if found is not None and (certificate := _certificate(found)) is not None:
            yield certificate
        roots = _roots(name, scope.secret(f"{name}{CA_SUFFIX}")) or _roots(name, found)
        if roots is not None:
            yield roots


def _wanted(scope: Scope) -> set[str]:
    """The names that gateways' servers and the DestinationRules of visible services give."""
    names: set[str] = set()
    for gateway in scope.gateways:
        for server in gateway.spec.servers:
            if server.tls is not None:
                names.update((server.tls.credential_name, *server.tls.credential_names))
                names.add((server.tls.ca_cert_credential_name or "").removesuffix(CA_SUFFIX))
    for hostname in scope.services:
        rule = scope.destination_rule(hostname)
        if rule is None:
            continue
        for policy in (rule.traffic_policy, *(subset.traffic_policy for subset in rule.subsets.values())):
            for setting in () if policy is None else (policy, *policy.port_level_settings):
                if setting.tls is not None:
                    names.add(setting.tls.credential_name)
    return {name for name in names if name}


def _certificate(resource: Resource) -> Generated | None:
    for certificate, key in _CERTIFICATE:
        chain, private = resource.spec.value(certificate), resource.spec.value(key)
        if chain and private:
            made = secret_pb2.Secret(name=f"{PREFIX}{resource.name}")
            made.tls_certificate.certificate_chain.inline_bytes = chain
            made.tls_certificate.private_key.inline_bytes = private
            return Generated(encode(made.name, made), (resource.key,))
    return None


def _roots(name: str, resource: Resource | None) -> Generated | None:
    if resource is None:
        return None
    for key in _ROOTS:
        roots = resource.spec.value(key)
        if roots:
            made = secret_pb2.Secret(name=f"{PREFIX}{name}{CA_SUFFIX}")
            made.validation_context.trusted_ca.inline_bytes = roots
            for revoked in filter(None, map(resource.spec.value, _REVOKED)):
                made.validation_context.crl.inline_bytes = revoked
            return Generated(encode(made.name, made), (resource.key,))
    return None
