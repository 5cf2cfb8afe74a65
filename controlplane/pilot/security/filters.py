"""The filters of all policies of a proxy, in Istio's order: CUSTOM, tokens, AUDIT, DENY, ALLOW."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2

from controlplane.model.resource import Resource
from controlplane.pilot.memo import Same
from controlplane.pilot.scope import Scope
from controlplane.pilot.security.authorization import ALLOW, DENY, LOG, is_dry_run, rbac
from controlplane.pilot.security.external_authorization import (
    MARK,
    Provider,
    find_provider,
    http_filter,
    network_filter,
    policy_prefix,
)
from controlplane.pilot.security.policies import Policies
from controlplane.pilot.security.request_authentication import token_filter

HTTP_RBAC = "envoy.filters.http.rbac"
NETWORK_RBAC = "envoy.filters.network.rbac"
_REFUSED = "-deny-due-to-bad-CUSTOM-action"
_ACTIONS = (("AUDIT", LOG, ""), ("DENY", DENY, "istio_dry_run_deny_"), ("ALLOW", ALLOW, "istio_dry_run_allow_"))

Providers = tuple[tuple[str, Provider | None], ...]


def http_filters(scope: Scope, policies: Policies) -> list[Any]:
    """`HttpFilter` messages, to stand before those of the router: requests are judged before anything is done with them."""
    if not any(policies):
        return []
    providers = _providers(scope, policies)
    tokens = token_filter(scope, policies.requests)
    key = ("http filters of policies", policies.authorization, *_surroundings(scope, providers))
    made: tuple[list[Any], list[Any]] = scope.memo.get(
        key, lambda: (list(_custom(scope, policies, providers, http=True)), list(_judging(scope, policies, http=True)))
    )
    asking, judging = made
    return [*asking, *([tokens] if tokens is not None else ()), *judging]


def network_filters(scope: Scope, policies: Policies, *, unknown: bool = False) -> list[Any]:
    """`Filter` messages, to stand before a TCP proxy.

    Providers that are asked over HTTP know only requests, so that nobody asks them about connections to ports of TCP. Where
    the protocol is ``unknown`` there may be requests in a connection: it is denied, if it may be one to ask them about.
    """
    if not policies.authorization:
        return []
    providers = _providers(scope, policies)
    key = ("network filters of policies", policies.authorization, unknown, *_surroundings(scope, providers))
    made: list[Any] = scope.memo.get(
        key,
        lambda: [
            *_custom(scope, policies, providers, http=False, unknown=unknown),
            *_judging(scope, policies, http=False),
        ],
    )
    return made


def grpc_filters(scope: Scope, policies: Policies) -> list[Any]:
    """`HttpFilter` messages for a gRPC server without a proxy, which knows of all filters only RBAC, without shadow rules:
    what a provider would be asked about is denied, AUDIT says nothing, and what is asked of tokens is in nobody's favour.

    Source: gRPC's proposal A41 (xDS RBAC).
    """
    made = []
    for name, action in (("CUSTOM", DENY), ("DENY", DENY), ("ALLOW", ALLOW)):
        chosen = [each for each in policies.authorization if each.spec.action == name and not is_dry_run(each)]
        if chosen:
            rules = rbac(chosen, action, _domains(scope), http=True, grpc=True)
            place = HTTP_RBAC if name == "ALLOW" else f"{HTTP_RBAC}.{name}"  # gRPC wants names that differ
            made.append(_packed(hcm_pb2.HttpFilter, place, http_rbac_pb2.RBAC(rules=rules)))
    return made


def askers_of_requests(scope: Scope, policies: Policies) -> list[Resource]:
    """The policies that have a provider asked which knows only requests."""
    over_http = {
        name for name, provider in _providers(scope, policies) if provider is not None and not provider.is_grpc
    }
    return [
        policy
        for policy in policies.authorization
        if policy.spec.action == "CUSTOM" and policy.spec.provider.name in over_http and not is_dry_run(policy)
    ]


def _surroundings(scope: Scope, providers: Providers) -> Iterator[Hashable]:
    """What filters are made from besides policies."""
    yield Same(scope.mesh)
    yield tuple(provider and provider.hostname for _, provider in providers)


def _domains(scope: Scope) -> tuple[str, ...]:
    return (scope.mesh.trust_domain, *scope.mesh.trust_domain_aliases)


def _providers(scope: Scope, policies: Policies) -> Providers:
    """The providers that policies name, by name. Dry runs of CUSTOM ask nobody: there is nothing that watches for them."""
    names = {
        policy.spec.provider.name
        for policy in policies.authorization
        if policy.spec.action == "CUSTOM" and not is_dry_run(policy)
    }
    return tuple((name, find_provider(scope, name)) for name in sorted(names))


def _custom(
    scope: Scope, policies: Policies, providers: Providers, *, http: bool, unknown: bool = False
) -> Iterator[Any]:
    for name, provider in providers:
        chosen = [
            policy
            for policy in policies.authorization
            if policy.spec.action == "CUSTOM" and policy.spec.provider.name == name and not is_dry_run(policy)
        ]
        rules = rbac(chosen, DENY, _domains(scope), http=http, prefix=policy_prefix(name))
        if provider is None or (unknown and not provider.is_grpc):
            refused = type(rules)(action=DENY)
            for policy, rule in rules.policies.items():
                refused.policies[f"{policy}{_REFUSED}"].CopyFrom(rule)
            yield _rbac(http, refused, None, "")
        elif http:
            yield _rbac(http, None, rules, MARK)
            yield _packed(hcm_pb2.HttpFilter, "envoy.filters.http.ext_authz", http_filter(provider))
        elif (asking := network_filter(provider)) is not None:
            yield _rbac(http, None, rules, MARK)
            yield _packed(components.Filter, "envoy.filters.network.ext_authz", asking)


def _judging(scope: Scope, policies: Policies, *, http: bool) -> Iterator[Any]:
    for name, action, prefix in _ACTIONS:
        chosen = [policy for policy in policies.authorization if policy.spec.action == name]
        if chosen:
            yield _rbac(
                http,
                _of(chosen, lambda policy: not is_dry_run(policy), action, scope, http),
                _of(chosen, is_dry_run, action, scope, http),
                prefix,
            )


def _of(policies: list[Resource], wanted: Callable[[Resource], bool], action: Any, scope: Scope, http: bool) -> Any:
    chosen = [policy for policy in policies if wanted(policy)]
    return rbac(chosen, action, _domains(scope), http=http) if chosen else None


def _rbac(http: bool, rules: Any, shadow_rules: Any, prefix: str) -> Any:
    """The filter; without ``rules`` it lets all pass. ``prefix`` is that of what it counts and says of ``shadow_rules``."""
    made = http_rbac_pb2.RBAC() if http else network_rbac_pb2.RBAC(stat_prefix="tcp.")
    if rules is not None:
        made.rules.CopyFrom(rules)
    if shadow_rules is not None:
        made.shadow_rules.CopyFrom(shadow_rules)
        made.shadow_rules_stat_prefix = prefix
    if http:
        return _packed(hcm_pb2.HttpFilter, HTTP_RBAC, made)
    return _packed(components.Filter, NETWORK_RBAC, made)


def _packed(message: Any, name: str, config: Any) -> Any:
    made = message(name=name)
    made.typed_config.Pack(config, deterministic=True)
    return made
