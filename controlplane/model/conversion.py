"""From resources to services and endpoints.

Sources: https://istio.io/latest/docs/reference/config/networking/service-entry/,
https://istio.io/latest/docs/reference/config/networking/workload-entry/ and
https://kubernetes.io/docs/concepts/services-networking/service/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.model.proxy import NOWHERE, Locality
from controlplane.model.resource import Resource
from controlplane.model.service import (
    Endpoint,
    Health,
    Port,
    PortProtocol,
    Resolution,
    Service,
    parse_protocol,
    select_protocol,
)

EXPORT_ANNOTATION = "networking.istio.io/exportTo"
SUBJECT_ALT_NAMES_ANNOTATION = "alpha.istio.io/kubernetes-serviceaccounts"
LOCALITY_LABEL = "istio-locality"
TLS_MODE_LABEL = "security.istio.io/tlsMode"
NETWORK_LABEL = "topology.istio.io/network"
REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"
SUB_ZONE_LABEL = "topology.istio.io/subzone"


def export_to(visible: Sequence[str], namespace: str, default: Sequence[str] = ()) -> frozenset[str]:
    """Istio's `exportTo` as names of namespaces: `.` is the resource's own, `*` stays, `~` is nobody."""
    names = frozenset(namespace if name == "." else name for name in (visible or default or ("*",)))
    return names - {"~"}


def locality(text: str) -> Locality:
    """`region/zone/subzone`, as in Istio's `locality` fields; the label form has dots instead of slashes."""
    if not text:
        return NOWHERE
    parts = text.split("/", 2) if "/" in text else text.split(".", 2)
    return Locality(*parts)


def kubernetes_service(resource: Resource, domain: str, default_export: Sequence[str] = ()) -> Service:
    """The service that a core Service stands for."""
    spec = resource.spec
    annotations = resource.metadata.annotations
    told = [name.strip() for name in annotations.get(EXPORT_ANNOTATION, "").split(",") if name.strip()]
    headless = spec.cluster_ip == "None"
    external = spec.external_name or ""
    ports = tuple(
        Port(
            port.port,
            port.name or "",
            select_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol or "TCP"),
            port.target_port or 0,
        )
        for port in spec.ports
    )
    accounts = annotations.get(SUBJECT_ALT_NAMES_ANNOTATION, "")
    return Service(
        hostname=f"{resource.name}.{resource.namespace}.svc.{domain}",
        namespace=resource.namespace,
        name=resource.name,
        ports=ports,
        origins=(resource.key,),
        resolution=Resolution.DNS if spec.type == "ExternalName" else Resolution.STATIC,
        addresses=() if headless else tuple(dict.fromkeys(ip for ip in (spec.cluster_ip, *spec.cluster_ips) if ip)),
        export_to=export_to(told, resource.namespace, default_export),
        mesh_external=spec.type == "ExternalName",
        headless=headless,
        publish_not_ready=bool(spec.publish_not_ready_addresses),
        labels=resource.metadata.labels,
        selector=dict(spec.selector or {}),
        subject_alt_names=tuple(name.strip() for name in accounts.split(",") if name.strip()),
        external_name=external,
        created=resource.metadata.created,
    )


def service_entry(resource: Resource, default_export: Sequence[str] = ()) -> Iterator[Service]:
    """The services of a ServiceEntry: one for each of its hosts."""
    spec = resource.spec
    ports = tuple(
        Port(port.number, port.name or "", parse_protocol(port.protocol or ""), port.target_port or 0)
        for port in spec.ports
    )
    selector = spec.workload_selector.labels if spec.workload_selector else {}
    for host in spec.hosts:
        yield Service(
            hostname=host.lower(),
            namespace=resource.namespace,
            name=host,
            ports=ports,
            origins=(resource.key,),
            resolution=Resolution(spec.resolution or "NONE"),
            addresses=tuple(spec.addresses),
            export_to=export_to(spec.export_to, resource.namespace, default_export),
            mesh_external=(spec.location or "MESH_EXTERNAL") == "MESH_EXTERNAL",
            labels=resource.metadata.labels,
            selector=dict(selector),
            subject_alt_names=tuple(spec.subject_alt_names),
            created=resource.metadata.created,
        )


def endpoint_ports(service: Service, named: Mapping[str, int], *, of_pod: bool = False) -> dict[int, int]:
    """The endpoint's own port for each of the service's: what the endpoint says of its name, else the service's target.

    A Pod's names are for targets alone. A target that is a name which the endpoint does not have leaves the port out.
    """
    found: dict[int, int] = {}
    for port in service.ports:
        if port.protocol is PortProtocol.UDP:
            continue
        number = named.get(port.name) if port.name and not of_pod else None
        if number is None:
            number = named.get(port.target) if isinstance(port.target, str) else port.target or port.number
        if number is not None:
            found[port.number] = number
    return found


def workload_entry(service: Service, spec: Any, resource: Resource, labels: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of a service that a WorkloadEntry stands for, its own or one inside of a ServiceEntry."""
    address = spec.address or ""
    if not address:
        return None
    unix = address.startswith("unix://")
    ports = {port.number: 0 for port in service.ports} if unix else endpoint_ports(service, spec.ports or {})
    if not ports:
        return None
    place = locality(spec.locality or "") if spec.locality else locality(labels.get(LOCALITY_LABEL, ""))
    return Endpoint(
        address=address,
        ports=ports,
        labels=labels,
        locality=place,
        weight=spec.weight or 0,
        health=_declared_health(resource) if resource.key.kind == "WorkloadEntry" else Health.HEALTHY,
        service_account=spec.service_account or "",
        network=spec.network or labels.get(NETWORK_LABEL, ""),
        tls_mode=labels.get(TLS_MODE_LABEL, "disabled"),
        workload=resource.key,
    )


def _declared_health(resource: Resource) -> Health:
    """What the condition `Healthy` in a WorkloadEntry's status says; without one it is healthy."""
    status = resource.document.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Healthy":
            return Health.HEALTHY if str(condition.get("status")).lower() == "true" else Health.UNHEALTHY
    return Health.HEALTHY


def pod(service: Service, resource: Resource) -> Endpoint | None:
    """The endpoint of a service that a Pod stands for: a running one with an address."""
    status = resource.document.get("status") or {}
    address = status.get("podIP") or ""
    if not address or status.get("phase") in ("Succeeded", "Failed"):
        return None
    spec = resource.document.get("spec") or {}
    named = {
        port["name"]: port["containerPort"]
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("name")
    }
    ports = endpoint_ports(service, named, of_pod=True)
    if not ports:
        return None
    ready = {item.get("type"): item.get("status") for item in status.get("conditions") or ()}.get("Ready", "True")
    labels = resource.metadata.labels
    return Endpoint(
        address=address,
        ports=ports,
        labels=labels,
        locality=labelled_locality(labels),
        health=_readiness(service, ready == "True"),
        service_account=spec.get("serviceAccountName") or "",
        network=labels.get(NETWORK_LABEL, ""),
        tls_mode=labels.get(TLS_MODE_LABEL, "disabled"),
        workload=resource.key,
    )


def _readiness(service: Service, ready: bool) -> Health:
    return Health.HEALTHY if ready or service.publish_not_ready else Health.UNHEALTHY


def labelled_locality(labels: Mapping[str, str]) -> Locality:
    """Where something is by Istio's own label or by Kubernetes' topology labels."""
    told = labels.get(LOCALITY_LABEL, "")
    if told:
        return locality(told)
    region = labels.get(REGION_LABEL, "")
    return Locality(region, labels.get(ZONE_LABEL, ""), labels.get(SUB_ZONE_LABEL, "")) if region else NOWHERE


def listed(service: Service, resource: Resource, pods: Mapping[str, Resource]) -> Iterator[Endpoint]:
    """The endpoints of a service that an Endpoints or EndpointSlice resource lists. ``pods`` are those of its namespace."""
    document = resource.document
    if resource.key.kind == "Endpoints":
        for subset in document.get("subsets") or ():
            ports = _listed_ports(service, subset.get("ports") or ())
            for address in subset.get("addresses") or ():
                yield _listed(resource, address.get("ip", ""), ports, Health.HEALTHY, address.get("targetRef"), pods)
            for address in subset.get("notReadyAddresses") or ():
                health = _readiness(service, False)
                yield _listed(resource, address.get("ip", ""), ports, health, address.get("targetRef"), pods)
        return
    ports = _listed_ports(service, document.get("ports") or ())
    for endpoint in document.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        health = Health.HEALTHY
        if conditions.get("terminating") and not conditions.get("ready"):
            health = Health.DRAINING
        elif conditions.get("ready") is False:
            health = _readiness(service, False)
        for ip in endpoint.get("addresses") or ():
            yield _listed(resource, ip, ports, health, endpoint.get("targetRef"), pods, endpoint.get("zone") or "")


def listed_pods(document: Mapping[str, Any]) -> Iterator[str]:
    """The names of the Pods behind the endpoints that an Endpoints or EndpointSlice document lists."""
    endpoints = list(document.get("endpoints") or ())
    for subset in document.get("subsets") or ():
        endpoints += [*(subset.get("addresses") or ()), *(subset.get("notReadyAddresses") or ())]
    for endpoint in endpoints:
        target = endpoint.get("targetRef") or {}
        if target.get("kind") == "Pod":
            yield target["name"]


def _listed_ports(service: Service, ports: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Listed ports are told apart by their names, which are those of the service's ports."""
    by_name = {str(port.get("name") or ""): int(port["port"]) for port in ports if port.get("port") is not None}
    alone = len(service.ports) == 1 and len(by_name) == 1
    found = {}
    for port in service.ports:
        number = next(iter(by_name.values())) if alone else by_name.get(port.name)
        if number is not None and port.protocol is not PortProtocol.UDP:
            found[port.number] = number
    return found


def _listed(
    resource: Resource,
    address: str,
    ports: Mapping[int, int],
    health: Health,
    target: Mapping[str, Any] | None,
    pods: Mapping[str, Resource],
    zone: str = "",
) -> Endpoint:
    behind = pods.get(target.get("name", "")) if target and target.get("kind") == "Pod" else None
    labels = behind.metadata.labels if behind else {}
    account = (behind.document.get("spec") or {}).get("serviceAccountName") or "" if behind else ""
    place = labelled_locality(labels)
    return Endpoint(
        address=address,
        ports=ports,
        labels=labels,
        locality=place if place != NOWHERE or not zone else Locality("", zone, ""),
        health=health,
        service_account=account,
        network=labels.get(NETWORK_LABEL, ""),
        tls_mode=labels.get(TLS_MODE_LABEL, "disabled"),
        workload=behind.key if behind else resource.key,
    )
