"""Rules of AuthorizationPolicies as those of Envoy's RBAC, by Istio's names.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2

from controlplane.model.resource import Resource
from controlplane.pilot.security.conditions import (
    OPERATION,
    SOURCE,
    Maker,
    Permission,
    Principal,
    Setting,
    Unknown,
    condition,
)

ALLOW = rbac_pb2.RBAC.ALLOW
DENY = rbac_pb2.RBAC.DENY
LOG = rbac_pb2.RBAC.LOG
_DRY_RUN = "istio.io/dry-run"


def is_dry_run(policy: Resource) -> bool:
    """Whether a policy only says what it would do."""
    return policy.metadata.annotations.get(_DRY_RUN, "").lower() == "true"


def rbac(
    policies: Iterable[Resource],
    action: Any,
    domains: tuple[str, ...],
    *,
    http: bool,
    prefix: str = "",
    grpc: bool = False,
) -> Any:
    """An `RBAC` of the rules of policies; ``prefix`` stands before the rules' names.

    Where there are no requests (not ``http``), or ``grpc`` knows only a part of what they have, a rule that asks for something
    else in them allows nobody, and denies all that meet the rest of it: what cannot be known is not held in anybody's favour.
    """
    made = rbac_pb2.RBAC(action=action)
    for policy in policies:
        setting = Setting(policy.namespace, domains, http, grpc)
        place = f"{prefix}ns[{policy.namespace}]-policy[{policy.name}]"
        for index, rule in enumerate(policy.spec.rules):
            try:
                found = _policy(setting, rule, lenient=action != ALLOW)
            except Unknown:
                continue
            made.policies[f"{place}-rule[{index}]"].CopyFrom(found)
        if not policy.spec.rules:
            made.policies[f"{place}-rule[0]"].CopyFrom(_NEVER)
    return made


_NEVER = rbac_pb2.Policy(
    permissions=[Permission(not_rule=Permission(any=True))], principals=[Principal(not_id=Principal(any=True))]
)


def _policy(setting: Setting, rule: Any, *, lenient: bool) -> Any:
    permissions: list[Any] = []
    principals: list[Any] = []
    for each in rule.when:
        make, is_permission = condition(each.key)
        found = permissions if is_permission else principals
        found += _conditions(setting, make, each.values, each.not_values, lenient)
    sources = [_fields(setting, SOURCE, each.source, lenient) for each in rule.from_ or ()]
    operations = [_fields(setting, OPERATION, each.operation, lenient) for each in rule.to or ()]
    made = rbac_pb2.Policy()
    made.principals.extend(_all_ids([*found, *principals]) for found in sources or [[]])
    made.permissions.extend(_all_rules([*found, *permissions]) for found in operations or [[]])
    return made


def _fields(setting: Setting, makers: Iterable[tuple[str, str, Maker]], spec: Any, lenient: bool) -> list[Any]:
    found: list[Any] = []
    for name, excluding, make in makers:
        found += _conditions(setting, make, getattr(spec, name), getattr(spec, excluding), lenient)
    return found


def _conditions(
    setting: Setting, make: Maker, values: Sequence[str], excluded: Sequence[str], lenient: bool
) -> list[Any]:
    """One of ``values``, none of ``excluded``; each of them, if there are any."""
    found = []
    try:
        if values:
            found.append(make(setting, values))
        if excluded:
            other = make(setting, excluded)
            negated = Permission(not_rule=other) if isinstance(other, Permission) else Principal(not_id=other)
            found.append(negated)
    except Unknown:
        if not lenient:
            raise
    return found


def _all_rules(found: Sequence[Any]) -> Any:
    if not found:
        return Permission(any=True)
    return found[0] if len(found) == 1 else Permission(and_rules=Permission.Set(rules=found))


def _all_ids(found: Sequence[Any]) -> Any:
    if not found:
        return Principal(any=True)
    return found[0] if len(found) == 1 else Principal(and_ids=Principal.Set(ids=found))
