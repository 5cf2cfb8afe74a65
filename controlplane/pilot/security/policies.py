"""Which policies are of which proxies.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/ and `request_authentication`: a policy
is of the workloads of its namespace (of all, if that is the root namespace) that its selector finds, without one of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from controlplane.model.proxy import Proxy
from controlplane.model.registry import selects
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.snapshot import ByName, oldest_first

AUTHORIZATION = "AuthorizationPolicy"
REQUESTS = "RequestAuthentication"
POLICY_KINDS = frozenset({AUTHORIZATION, REQUESTS})


class Policies(NamedTuple):
    """The policies of one proxy: the root namespace's first, then its own namespace's, the oldest first."""

    authorization: tuple[Resource, ...] = ()
    requests: tuple[Resource, ...] = ()

    @property
    def keys(self) -> tuple[ResourceKey, ...]:
        """Names of all of them: what is made from them has them for causes."""
        return tuple(policy.key for policies in self for policy in policies)


NO_POLICIES = Policies()


class PolicyIndex:
    """Policies by kind and namespace. It stays as long as the policies do."""

    def __init__(self, spaces: Mapping[str, Mapping[str, ByName]], root: str) -> None:
        self._root = root
        self._by_namespace = {
            (kind, namespace): oldest_first(names.values())
            for kind in POLICY_KINDS
            for namespace, names in spaces.get(kind, {}).items()
            if names
        }

    def of(self, proxy: Proxy) -> Policies:
        """The policies of a proxy, by its namespace and all its labels."""
        if not self._by_namespace:
            return NO_POLICIES
        return Policies(self._of_kind(AUTHORIZATION, proxy), self._of_kind(REQUESTS, proxy))

    def labels(self, namespace: str) -> frozenset[str]:
        """The labels that selectors ask for of the proxies of a namespace."""
        return frozenset(
            label
            for (_, own), policies in self._by_namespace.items()
            if own in (self._root, namespace)
            for policy in policies
            if policy.spec.selector is not None
            for label in policy.spec.selector.match_labels or ()
        )

    def concerns(self, policy: Resource, proxy: Proxy) -> bool:
        """Whether a policy is of a proxy."""
        return policy.namespace in (self._root, proxy.namespace) and _selects(policy, proxy)

    def _of_kind(self, kind: str, proxy: Proxy) -> tuple[Resource, ...]:
        return tuple(
            policy
            for namespace in dict.fromkeys((self._root, proxy.namespace))
            for policy in self._by_namespace.get((kind, namespace), ())
            if _selects(policy, proxy)
        )


def _selects(policy: Resource, proxy: Proxy) -> bool:
    selector = policy.spec.selector
    return selector is None or selects(selector.match_labels, proxy.labels)
