"""Who may ask over the network, and as whom: credentials that Citadel judges, nodes that are believed as far as those go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from controlplane.citadel.citadel import Citadel
from controlplane.citadel.tokens import is_join_token
from controlplane.model.certificates import CannotIssue, NotAllowed
from controlplane.model.credentials import Identity, Means, Role, Unauthenticated
from controlplane.model.grpc_calls import bearer_of
from controlplane.model.proxy import Proxy
from controlplane.model.registration import group_of
from controlplane.model.resource import Resource, ResourceKey
from controlplane.xds.admission import Admitted

_NOT_FOR_HEALTH: Final = (
    "a join token is no credential for health discovery, and is not used up by this: show the certificate that it is traded "
    "for (mizzen join)"
)


class Admission:
    """At the doors of a control plane. ``resources`` are those in effect. All raise PermissionError with the reason; who is
    refused though they have shown something good, or a join token, is in the audit log.
    """

    def __init__(self, citadel: Citadel, resources: Mapping[ResourceKey, Resource]) -> None:
        self._citadel = citadel
        self._resources = resources

    async def admit(
        self, proxy: Proxy, metadata: Mapping[str, Any], certificate: bytes | None, source: str
    ) -> Admitted:
        """Who asks for configuration on a stream: a join token is used up by it."""
        token = bearer_of(metadata)
        if token is not None and is_join_token(token):
            try:
                issuance = self._citadel.issuance
                identity = await issuance.admit(token, lambda identity: self.believed(proxy, identity), source=source)
            except (Unauthenticated, NotAllowed, CannotIssue) as error:
                raise PermissionError(str(error)) from error
        else:
            identity = await self._identify(metadata, certificate, source)
        return self._admitted(proxy, identity)

    async def admit_for_health(
        self, proxy: Proxy, metadata: Mapping[str, Any], certificate: bytes | None, source: str
    ) -> Admitted:
        """As `admit`, but for a join token: it would be used up before the stream of configuration can show it."""
        token = bearer_of(metadata)
        if token is not None and is_join_token(token):
            self._citadel.issuance.turned_away(_NOT_FOR_HEALTH, authenticated=Means.JOIN_TOKEN, source=source)
            raise PermissionError(_NOT_FOR_HEALTH)
        return self._admitted(proxy, await self._identify(metadata, certificate, source))

    async def admit_operator(self, metadata: Mapping[str, Any], certificate: bytes | None, source: str) -> None:
        """Who asks what others have."""
        if (await self._identify(metadata, certificate, source)).role is Role.WORKLOAD:
            raise PermissionError("only people may see what other proxies have")

    def believed(self, proxy: Proxy, identity: Identity) -> Proxy:
        """A node is believed as far as its credentials go: a workload is of its namespace and service account."""
        if identity.role is Role.ADMIN:
            return proxy
        if identity.role is not Role.WORKLOAD:
            raise PermissionError(f"{identity.name} may read, but gets no configuration of a proxy: secrets are in it")
        if proxy.namespace != identity.namespace:
            raise PermissionError(f"{identity.name} is not of the namespace {proxy.namespace} that the node names")
        if proxy.service_account and proxy.service_account != identity.service_account:
            raise PermissionError(f"{identity.name} is not the service account {proxy.service_account} of the node")
        return replace(proxy, service_account=identity.service_account, labels=self._labels_of(proxy, identity))

    def _admitted(self, proxy: Proxy, identity: Identity) -> Admitted:
        believed = self.believed(proxy, identity)
        if identity.role is not Role.WORKLOAD:
            return Admitted(believed)
        return Admitted(believed, partial(self._citadel.denied, identity))

    async def _identify(self, metadata: Mapping[str, Any], certificate: bytes | None, source: str) -> Identity:
        try:
            return await self._citadel.credentials.authenticate(token=bearer_of(metadata), certificate=certificate)
        except Unauthenticated as error:
            if error.proof:
                self._citadel.issuance.turned_away(f"{error} (xDS)", authenticated=error.proof, source=source)
            raise PermissionError(str(error)) from error

    def _labels_of(self, proxy: Proxy, identity: Identity) -> Mapping[str, str]:
        """By its labels a workload is found by selectors: those of Services, and of Gateways with their keys. So they are
        believed as far as the WorkloadGroup of its service account has them, and that somebody else has made.
        """
        group = self._resources.get(ResourceKey("WorkloadGroup", proxy.namespace, group_of(proxy)))
        if group is None or group.spec.template.service_account != identity.service_account:
            return {}
        labels = {**(group.spec.template.labels or {})}
        if group.spec.metadata is not None:
            labels |= group.spec.metadata.labels or {}
        return labels
