"""Why an RBAC engine allows or denies, in words: the conditions that decide, asked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.config.matcher import HeaderMatcher, PathMatcher, StringMatcher
from sidecar.config.rbac import (
    AndPermissions,
    AndPrincipals,
    AnyRule,
    Authenticated,
    DestinationIp,
    DestinationPortRange,
    NotPermission,
    NotPrincipal,
    OrPermissions,
    OrPrincipals,
    PeerIp,
    Permission,
    Principal,
    Rbac,
    RequestedServerName,
    SourcedMetadata,
)
from sidecar.core.rbac import RbacSubject, allows, compile_permission, compile_principal


@dataclass(frozen=True, slots=True)
class RbacDecision:
    """What an engine says, and why. ``policy`` is the first that fits, None without one.

    ``failed`` holds, for each policy asked before, the permissions and principals that none of was met, in words.
    """

    action: str
    allowed: bool
    policy: str | None
    failed: Mapping[str, tuple[str, ...]]


def explain_rbac(rules: Rbac, subject: RbacSubject) -> RbacDecision:
    """Decide as ``compile_rbac`` does, and say which conditions of which policy were not met."""
    http = subject.request is not None
    failed: dict[str, tuple[str, ...]] = {}
    found: str | None = None
    for policy in sorted(rules.policies, key=lambda one: one.name):
        unmet: list[str] = []
        for kind, alternatives, ask in (
            ("permission", policy.permissions, [compile_permission(rule, http) for rule in policy.permissions]),
            ("principal", policy.principals, [compile_principal(rule, http) for rule in policy.principals]),
        ):
            if not any(condition(subject) for condition in ask):
                unmet += [f"{kind} {describe_rule(rule)} is not met" for rule in alternatives] or [f"it has no {kind}"]
        if not unmet:
            found = policy.name
            break
        failed[policy.name] = tuple(unmet)
    return RbacDecision(rules.action, allows(rules.action, found), found, failed)


def describe_rule(rule: Permission | Principal) -> str:
    """One permission or principal in words."""
    match rule:
        case AnyRule():
            return "any"
        case AndPermissions(inner) | AndPrincipals(inner):
            return f"({' and '.join(map(describe_rule, inner))})"
        case OrPermissions(inner) | OrPrincipals(inner):
            return f"({' or '.join(map(describe_rule, inner))})"
        case NotPermission(negated) | NotPrincipal(negated):
            return f"not {describe_rule(negated)}"
        case HeaderMatcher():
            return f"{'not ' if rule.invert_match else ''}header {_text(rule.name)} {_wanted(rule)}"
        case PathMatcher(path):
            return f"path {_string(path)}"
        case DestinationIp(network):
            return f"destination_ip in {network}"
        case DestinationPortRange(start, end):
            return f"destination_port {start}" + (f" to {end - 1}" if end - start > 1 else "")
        case RequestedServerName(name):
            return f"requested_server_name {_string(name)}"
        case Authenticated(name):
            return "authenticated" if name is None else f"authenticated as {_string(name)}"
        case PeerIp(kind, network):
            return f"{kind} in {network}"
        case SourcedMetadata(matcher, source):
            return f"{'route' if source == 'ROUTE' else 'dynamic'} metadata {'/'.join((matcher.filter, *matcher.path))}"


def _wanted(matcher: HeaderMatcher) -> str:
    match = matcher.match
    if isinstance(match, bool):
        return "present" if match else "absent"
    return _string(match) if isinstance(match, StringMatcher) else f"in {match.start} to {match.end - 1}"


def _string(matcher: StringMatcher) -> str:
    return f"{matcher.match_pattern} {_text(matcher.value)!r}{' in any case' if matcher.ignore_case else ''}"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
