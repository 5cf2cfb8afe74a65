"""A mesh of the resources in files, with the proxies that its workloads would have, for `mizzen explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from controlplane.cli.workload import PROXY_PORT
from controlplane.galley.validation.files import read_resources
from controlplane.model.conversion import TLS_MODE_LABEL
from controlplane.model.parsing import parse
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import Resource
from controlplane.pilot.translator import Pilot
from controlplane.proxy_configuration import configuration_of, matches

_FIRST_ADDRESS = 1


class ImaginedMesh:
    """Every workload has a sidecar with an identity: a WorkloadEntry, and a WorkloadGroup that has no entry yet.

    Raises click.ClickException, with all that is wrong in the files.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        resources, problems = read_resources(paths)
        if problems:
            raise click.ClickException("\n".join(map(str, problems)))
        self._pilot = Pilot()
        resources += _entries(resources)
        self._pilot.apply({resource.key: resource for resource in resources})
        self._proxies = [_proxy(one) for one in resources if one.key.kind == "WorkloadEntry" and one.spec.address]

    def named(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """See Mesh."""
        return [configuration_of(self._pilot, one) for one in self._proxies if matches(one, namespace, name)]

    def at(self, address: str) -> list[dict[str, Any]]:
        """See Mesh."""
        return [configuration_of(self._pilot, one) for one in self._proxies if address in one.addresses]


def _entries(resources: Sequence[Resource]) -> Iterator[Resource]:
    """One for each group that has none: what would register itself."""
    known = [(one.key.namespace, one.metadata.labels) for one in resources if one.key.kind == "WorkloadEntry"]
    number = _FIRST_ADDRESS
    for group in resources:
        if group.key.kind != "WorkloadGroup":
            continue
        labels = dict(group.spec.metadata.labels or {}) if group.spec.metadata is not None else {}
        if any(space == group.key.namespace and labels.items() <= dict(has).items() for space, has in known):
            continue
        template = group.spec.template
        spec: dict[str, Any] = {"address": template.address or f"198.18.0.{number}", "labels": labels}
        if template.service_account:
            spec["serviceAccount"] = template.service_account
        if template.ports:
            spec["ports"] = dict(template.ports)
        number += 1
        yield parse(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadEntry",
                "metadata": {
                    "name": group.key.name,
                    "namespace": group.key.namespace,
                    "labels": {**labels, TLS_MODE_LABEL: "istio"},
                },
                "spec": spec,
            }
        )


def _proxy(entry: Resource) -> Proxy:
    namespace, name = entry.key.namespace, entry.key.name
    labels = {**entry.metadata.labels, **(entry.spec.labels or {})}
    return Proxy(
        f"sidecar~{entry.spec.address}~{name}.{namespace}~{namespace}.svc.cluster.local",
        ProxyType.SIDECAR,
        namespace,
        name,
        f"{namespace}.svc.cluster.local",
        (entry.spec.address,),
        labels,
        entry.spec.service_account or "",
        metadata={"SDS_AGENT": "true", "HTTP_PROXY_PORT": str(PROXY_PORT), "LABELS": labels},
    )
