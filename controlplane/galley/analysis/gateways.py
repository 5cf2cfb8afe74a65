"""Gateways: who serves them, with which certificates, and what two of them both want."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh, label_text
from controlplane.galley.analysis.messages import (
    CONFLICTING_GATEWAYS,
    DUPLICATE_CERTIFICATE,
    GATEWAY_PORT,
    INVALID_CREDENTIAL,
    NOT_FOUND,
    Message,
)
from controlplane.model.istio.tls import ServerTLSSettings
from controlplane.model.registry import selects
from controlplane.model.resource import Resource

# Keys of a Secret with a certificate and its key, in the two manners that Istio reads.
_CERTIFICATES = (("tls.crt", "tls.key"), ("cert", "key"))


def analyze_gateway_workloads(mesh: Mesh) -> Iterator[Message]:
    """IST0101 and IST0162: a gateway without a proxy, a port that its service does not have."""
    for gateway in mesh.of_kind("Gateway"):
        selector = gateway.spec.selector
        if not selector or not mesh.workloads:
            continue
        found = mesh.selected(selector, None)
        if not found:
            text = (
                f"no workload has the labels {label_text(selector)}: start a gateway with them, or correct the selector"
            )
            yield Message(NOT_FOUND, gateway.key, text, "spec.selector")
            continue
        services = [
            service
            for service in mesh.services()
            if service.selector
            and any(each.namespace == service.namespace and selects(service.selector, each.labels) for each in found)
        ]
        if not services:
            continue
        open_ports = {port.target or port.number for service in services for port in service.ports}
        if any(isinstance(port, str) for port in open_ports):
            continue  # named ports are the containers': what they are is not known here
        for index, server in enumerate(gateway.spec.servers):
            if server.port.number not in open_ports:
                names = ", ".join(service.hostname for service in services)
                text = f"port {server.port.number} is not a target port of {names}: it cannot be reached there"
                yield Message(GATEWAY_PORT, gateway.key, text, f"spec.servers[{index}].port.number")


def analyze_gateway_credentials(mesh: Mesh) -> Iterator[Message]:
    """IST0101 and IST0161: the Secrets that servers name, and whether there is a certificate in them."""
    for gateway in mesh.of_kind("Gateway"):
        for index, server in enumerate(gateway.spec.servers):
            if server.tls is None or not server.tls.terminates:
                continue
            for path, name in _credentials(server.tls):
                at = f"spec.servers[{index}].tls.{path}"
                secret = _secret(mesh, gateway, name)
                if secret is None:
                    text = f'there is no Secret "{name}" beside the gateway: create it, or correct the name'
                    yield Message(NOT_FOUND, gateway.key, text, at)
                elif complaint := _certificate_complaint(secret):
                    yield Message(INVALID_CREDENTIAL, gateway.key, f'Secret "{name}" {complaint}', at)


def analyze_conflicting_gateways(mesh: Mesh) -> Iterator[Message]:
    """IST0145 and IST0138: the same proxies, port and hosts twice; one certificate in two gateways."""
    gateways = mesh.of_kind("Gateway")
    for gateway in gateways:
        for index, server in enumerate(gateway.spec.servers):
            hosts = [_host(gateway, host) for host in server.hosts]
            others = [
                f"{other.namespace}/{other.name}"
                for other in gateways
                if other is not gateway
                and other.spec.selector == gateway.spec.selector
                and any(
                    each.port.number == server.port.number
                    and any(_clash(one, _host(other, host)) for one in hosts for host in each.hosts)
                    for each in other.spec.servers
                )
            ]
            if others:
                text = (
                    f"{', '.join(others)} serves port {server.port.number} of workloads with "
                    f"{label_text(gateway.spec.selector) or 'any labels'} for {', '.join(server.hosts)} too: merge them"
                )
                yield Message(CONFLICTING_GATEWAYS, gateway.key, text, f"spec.servers[{index}]")
    yield from _duplicate_certificates(gateways)


def _duplicate_certificates(gateways: list[Resource]) -> Iterator[Message]:
    holders: dict[tuple[str, str], list[tuple[Resource, str]]] = {}
    for gateway in gateways:
        for index, server in enumerate(gateway.spec.servers):
            if server.tls is None or server.tls.mode not in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
                continue
            selector = label_text(gateway.spec.selector)
            for path, name in _credentials(server.tls):
                at = f"spec.servers[{index}].tls.{path}"
                holders.setdefault((selector, f"secret {name}"), []).append((gateway, at))
            if server.tls.server_certificate:
                at = f"spec.servers[{index}].tls.serverCertificate"
                holders.setdefault((selector, f"file {server.tls.server_certificate}"), []).append((gateway, at))
    for (_, certificate), found in sorted(holders.items(), key=lambda item: item[0]):
        for gateway, path in found:
            others = sorted({str(other.key) for other, _ in found if other is not gateway})
            if others:
                text = (
                    f"the certificate of {certificate} is in {', '.join(others)} too: clients that reuse an HTTP/2 connection "
                    "get 404 there, use one Gateway for its hosts"
                )
                yield Message(DUPLICATE_CERTIFICATE, gateway.key, text, path)


def _credentials(tls: ServerTLSSettings) -> Iterator[tuple[str, str]]:
    if tls.credential_name:
        yield "credentialName", tls.credential_name
    for index, name in enumerate(tls.credential_names):
        yield f"credentialNames[{index}]", name


def _secret(mesh: Mesh, gateway: Resource, name: str) -> Resource | None:
    """Secrets are beside the proxies: in the namespaces of the gateway's workloads, or the gateway's own."""
    namespaces = (
        {each.namespace for each in mesh.selected(gateway.spec.selector, None)} if gateway.spec.selector else set()
    )
    name = name.partition("://")[2] or name
    namespace, slash, rest = name.partition("/")
    if slash:
        return mesh.get("Secret", namespace, rest)
    found = (mesh.get("Secret", namespace, name) for namespace in [*sorted(namespaces), gateway.namespace])
    return next((secret for secret in found if secret is not None), None)


def _certificate_complaint(secret: Resource) -> str:
    values = {**secret.spec.data, **secret.spec.string_data}
    for certificate, key in _CERTIFICATES:
        if certificate in values and key in values:
            if b"-----BEGIN CERTIFICATE-----" in (secret.spec.value(certificate) or b""):
                return ""
            return f"has no certificate in PEM form in {certificate}: put one there"
    return "has neither tls.crt and tls.key nor cert and key: add them"


def _host(gateway: Resource, host: str) -> tuple[str, str]:
    namespace, _, name = host.rpartition("/")
    return (gateway.namespace if namespace == "." else namespace or "*", name)


def _clash(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two hosts, each with the namespaces whose routes it takes, are the same for some namespace."""
    return one[1] == other[1] and ("*" in (one[0], other[0]) or one[0] == other[0])
