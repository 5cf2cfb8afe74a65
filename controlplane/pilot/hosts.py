"""Hosts as resources name them, which may be wildcards."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.model.resource import Resource
from controlplane.pilot.scope import Scope


def covers(wildcard: str, host: str) -> bool:
    """Whether a host that may begin with `*` stands for another one, which may do so, too: `*.example.com` covers
    `a.example.com` and `*.a.example.com`, and everything covers itself.
    """
    return host == wildcard or (wildcard.startswith("*") and host.endswith(wildcard[1:]) and host != wildcard[2:])


def speaking_of(scope: Scope, owners: Sequence[Resource], hostname: str) -> list[Resource]:
    """The virtual services with TCP or TLS routes that have a host which is, or covers, ``hostname``."""
    return [
        owner
        for owner in owners
        if (owner.spec.tcp or owner.spec.tls)
        and any(covers(scope.resolve(host, owner.namespace), hostname) for host in owner.spec.hosts)
    ]
