"""Why an RBAC engine allows or denies, in words: the conditions that decide, asked one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.config.matcher import HeaderMatcher, PathMatcher, StringMatcher
from sidecar.config.rbac import (
    AndPermissions,
    AndPrincipals,
    AnyRule,
    Authenticated,
    DestinationIp,
    DestinationPortRange,
    FilterState,
    MtlsAuthenticated,
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
from sidecar.core.matching import path_only
from sidecar.core.rbac import allows, compile_permission, compile_principal, ordered


@dataclass(frozen=True, slots=True)
class RbacDecision:
    """What an engine says, and why. ``policy`` is the first that fits, None without one.

    ``failed`` holds, for each policy asked before, the permissions and principals that none of was met, and the parts of
    its condition that were not, in words.
    """

    action: str
    allowed: bool
    policy: str | None
    failed: Mapping[str, tuple[str, ...]]

    @property
    def summary(self) -> str:
        """The verdict in one phrase."""
        does = "allow" if self.allowed else "deny"
        if self.policy is None:
            return f"no policy fits, and {self.action} rules {does} what none fits"
        return f"policy {self.policy!r} fits, and {self.action} rules {does} what fits"

    @property
    def lines(self) -> tuple[str, ...]:
        """Why each policy that was asked before did not fit: the first condition that is not met."""
        return tuple(f"policy {name!r} does not fit: {unmet[0]}" for name, unmet in self.failed.items())


def explain_rbac(rules: Rbac, subject: Any) -> RbacDecision:
    """Decide as ``compile_rbac`` does for an ``RbacSubject``, and say which conditions of which policy were not met."""
    http = subject.request is not None
    failed: dict[str, tuple[str, ...]] = {}
    found: str | None = None
    for policy in ordered(rules.policies):
        unmet = _unmet("permission", policy.permissions, lambda rule: compile_permission(rule, http)(subject), subject)
        unmet += _unmet("principal", policy.principals, lambda rule: compile_principal(rule, http)(subject), subject)
        if policy.condition is not None:
            from sidecar.core.cel_words import unmet_parts  # a large module, that few rules need

            unmet += unmet_parts(policy.condition, subject)
        if not unmet:
            found = policy.name
            break
        failed[policy.name] = tuple(unmet)
    return RbacDecision(rules.action, allows(rules.action, found), found, failed)


def _unmet(kind: str, alternatives: Sequence[Any], holds: Callable[[Any], bool], subject: Any) -> list[str]:
    """For each of the alternatives the first condition that is not met; nothing if one of them holds."""
    if any(holds(rule) for rule in alternatives):
        return []
    return [f"{kind} {_first_unmet(rule, holds, subject)}" for rule in alternatives] or [f"it has no {kind}"]


def _first_unmet(rule: Any, holds: Callable[[Any], bool], subject: Any) -> str:
    if isinstance(rule, AndPermissions):
        return _first_unmet(next(one for one in rule.rules if not holds(one)), holds, subject)
    if isinstance(rule, AndPrincipals):
        return _first_unmet(next(one for one in rule.ids if not holds(one)), holds, subject)
    seen = _seen(rule, subject)
    return f"{describe_rule(rule)} is not met" + (f": {seen}" if seen else "")


def _seen(rule: Any, subject: Any) -> str:
    """What there is in place of what a rule wants; empty where that says nothing."""
    match rule:
        case OrPermissions(inner) | OrPrincipals(inner):
            return _seen(inner[0], subject) if inner else ""
        case NotPermission(negated) | NotPrincipal(negated):
            return _seen(negated, subject)
        case HeaderMatcher() if subject.request is not None:
            value = subject.request.lookup(rule.name)
            return "it is missing" if value is None else f"it is {_text(value)!r}"
        case PathMatcher() if subject.request is not None:
            return f"it is {_text(path_only(subject.request.path))!r}"
        case DestinationIp():
            return f"it is {subject.connection.local_address.ip}"
        case DestinationPortRange():
            return f"it is {subject.connection.local_address.port}"
        case RequestedServerName():
            return f"it is {subject.connection.requested_server_name!r}"
        case Authenticated() | MtlsAuthenticated():
            peer = subject.connection.tls
            if peer is None or not peer.presented:
                return "the client showed no certificate"
            return f"the client is {', '.join(map(_text, (*peer.uri_sans, *peer.dns_sans))) or _text(peer.subject)}"
        case PeerIp(kind, _):
            connection = subject.connection
            address = {
                "direct_remote_ip": connection.direct_remote_address,
                "source_ip": connection.remote_address,
            }.get(kind, subject.remote_address)
            return f"it is {address.ip}"
    return ""


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
        case MtlsAuthenticated(names):
            if names is None:
                return "authenticated by a validated client certificate"
            return f"authenticated by a client certificate with {names.san_type or 'a name'} {_string(names.matcher)}"
        case FilterState(key, text, ranges):
            wanted = f"in {', '.join(map(str, ranges))}" if text is None else _string(text)
            return f"filter state {key} {wanted}"
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
