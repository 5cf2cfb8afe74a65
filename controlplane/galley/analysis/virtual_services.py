"""VirtualServices among each other and with gateways: hosts that two of them have, gateways that are not there."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import (
    CLAIMS_WITHOUT_AUTHENTICATION,
    CONFLICTING_HOSTS,
    HOST_NOT_IN_GATEWAY,
    NOT_FOUND,
    Message,
)
from controlplane.model.istio.http_match import CLAIM
from controlplane.model.registry import selects
from controlplane.model.resource import Resource
from controlplane.model.values import hosts_overlap


def analyze_conflicting_hosts(mesh: Mesh) -> Iterator[Message]:
    """IST0109: of two VirtualServices for one host, the older one counts, the other one has no effect."""
    by_host: dict[str, list[Resource]] = {}
    for resource in mesh.of_kind("VirtualService"):
        if not resource.spec.gateways or "mesh" in resource.spec.gateways:
            for host in resource.spec.hosts:
                by_host.setdefault(mesh.full_name(host, resource.namespace), []).append(resource)
    for host, resources in sorted(by_host.items()):
        for resource in resources:
            others = [str(other.key) for other in resources if other is not resource and _meet(resource, other)]
            if others:
                text = f'{", ".join(others)} is for host "{host}" too, and only the oldest counts: merge them into one'
                yield Message(CONFLICTING_HOSTS, resource.key, text, "spec.hosts")


def analyze_gateways_of_routes(mesh: Mesh) -> Iterator[Message]:
    """IST0101 and IST0132: the gateways that VirtualServices name, and whether these serve their hosts."""
    for resource in mesh.of_kind("VirtualService"):
        named = [(f"spec.gateways[{index}]", name) for index, name in enumerate(resource.spec.gateways)]
        for protocol in ("http", "tls", "tcp"):
            for index, route in enumerate(getattr(resource.spec, protocol)):
                for number, match in enumerate(route.match):
                    at = f"spec.{protocol}[{index}].match[{number}].gateways"
                    named += [(f"{at}[{place}]", name) for place, name in enumerate(match.gateways)]
        for path, name in named:
            if name == "mesh":
                continue
            gateway = _gateway(mesh, resource, name)
            if gateway is None:
                text = f'there is no Gateway "{name}": create it, or correct the name (NAMESPACE/NAME for other namespaces)'
                yield Message(NOT_FOUND, resource.key, text, path)
            else:
                yield from _unserved(resource, gateway, path)


def analyze_claims(mesh: Mesh) -> Iterator[Message]:
    """IST0149: routes by the claims of tokens need a RequestAuthentication of the gateway that reads the tokens."""
    policies = mesh.of_kind("RequestAuthentication")
    for resource in mesh.of_kind("VirtualService"):
        path = next(_claims(resource), "")
        if not path:
            continue
        for name in resource.spec.gateways:
            gateway = _gateway(mesh, resource, name) if name != "mesh" else None
            if gateway is None:
                continue
            authenticated = any(
                policy.spec.jwt_rules
                and policy.namespace in (gateway.namespace, mesh.root_namespace)
                and selects(policy.spec.selector.match_labels if policy.spec.selector else {}, gateway.spec.selector)
                for policy in policies
            )
            if not authenticated:
                text = (
                    f'no RequestAuthentication reads tokens at gateway "{name}", so that this never matches: create one'
                )
                yield Message(CLAIMS_WITHOUT_AUTHENTICATION, resource.key, text, path)


def _claims(resource: Resource) -> Iterator[str]:
    for index, route in enumerate(resource.spec.http):
        for number, match in enumerate(route.match):
            for path, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                for name in names:
                    if name.startswith(CLAIM):
                        yield f"spec.http[{index}].match[{number}].{path}[{name}]"


def _gateway(mesh: Mesh, resource: Resource, name: str) -> Resource | None:
    namespace, slash, rest = name.partition("/")
    if slash:
        return mesh.get("Gateway", resource.namespace if namespace == "." else namespace, rest)
    first, _, second = name.partition(".")  # the form of old: NAME.NAMESPACE.svc.cluster.local
    return mesh.get("Gateway", second.partition(".")[0] or resource.namespace, first)


def _unserved(resource: Resource, gateway: Resource, path: str) -> Iterator[Message]:
    served = []
    for server in gateway.spec.servers:
        for host in server.hosts:
            namespace, _, name = host.rpartition("/")
            own = gateway.namespace == resource.namespace
            if namespace in ("", "*", resource.namespace) or (namespace == "." and own):
                served.append(name)
    missing = [host for host in resource.spec.hosts if not any(hosts_overlap(host, name) for name in served)]
    if missing:
        text = f"Gateway {gateway.namespace}/{gateway.name} does not serve {', '.join(missing)}: add the hosts to a server of it"
        yield Message(HOST_NOT_IN_GATEWAY, resource.key, text, path)


def _meet(one: Resource, other: Resource) -> bool:
    """Whether there is a namespace that sees both."""
    first, second = _seen_from(one), _seen_from(other)
    return "*" in first or "*" in second or bool(first & second)


def _seen_from(resource: Resource) -> set[str]:
    exported = resource.spec.export_to or ("*",)
    return {resource.namespace if namespace == "." else namespace for namespace in exported}
