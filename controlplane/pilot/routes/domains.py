"""Under which names and addresses clients ask for a service: the domains of its virtual host.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ for the short forms.
"""

from __future__ import annotations

from controlplane.model.service import Service


def service_names(service: Service, namespace: str, dns_domain: str) -> list[str]:
    """What a service is called by a client in ``namespace``, the full name first.

    ``dns_domain`` is the client's: of its cluster's services shorter forms are known, of its own namespace's the shortest.
    """
    names = [service.hostname]
    suffix = cluster_domain(dns_domain)  # "svc.cluster.local"
    if not service.wildcard and suffix and service.hostname.endswith(f".{suffix}"):
        short = service.hostname.removesuffix(f".{suffix}")  # "reviews.shop"
        name, _, own = short.partition(".")
        if own and "." not in own:
            names += [f"{short}.svc", short] if suffix.startswith("svc.") else [short]
            if own == namespace:
                names.append(name)
    if service.headless:
        names += [f"*.{name}" for name in tuple(names) if "." in name and not name.startswith("*")]
    return names


def cluster_domain(dns_domain: str) -> str:
    """`svc.cluster.local` of a client's domain, `shop.svc.cluster.local`."""
    _, _, rest = dns_domain.partition(".")
    return rest if rest.startswith("svc.") else (dns_domain if dns_domain.startswith("svc.") else "")


def service_addresses(service: Service) -> list[str]:
    """Addresses of its own, as an authority writes them; of blocks of addresses there is no such form."""
    return [
        f"[{address}]" if ":" in address else address
        for address in service.addresses
        if "/" not in address and address not in ("0.0.0.0", "::")
    ]


def service_blocks(service: Service) -> list[str]:
    """The blocks of addresses (CIDR) among its own."""
    return [address for address in service.addresses if "/" in address]


def with_port(names: list[str], port: int, *, bare: bool) -> list[str]:
    """Names with the port, as they are asked for where many ports are served; with ``bare`` also without."""
    return [f"{name}:{port}" for name in names] + (names if bare else [])
