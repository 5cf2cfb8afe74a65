"""Role-based access control, compiled: which policy fits a request or a raw connection.

Shared by the HTTP filter and the network filter. Whoever asks is an ``RbacSubject``: a stream of HTTP or a session of
TCP, the latter without a request. Source: Envoy's ``config.rbac.v3.RBAC`` reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from sidecar.config.address import CidrRange
from sidecar.config.cel import CelCondition
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
    Policy,
    Principal,
    Rbac,
    RequestedServerName,
    SourcedMetadata,
)
from sidecar.config.tls_secrets import SubjectAltNameMatcher
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_cidr_ranges, compile_header, compile_string, path_only
from sidecar.core.metadata_match import compile_metadata
from sidecar.core.rbac_index import NO_HEADERS, build_index
from sidecar.core.stream_info import ConnectionInfo, NamedRoute


class PeerCertificate(Protocol):
    """What of a TLS peer's certificate principals look at (``ConnectionInfo.tls``, None without TLS)."""

    presented: bool
    uri_sans: Sequence[bytes]
    dns_sans: Sequence[bytes]
    subject: bytes
    """The subject as RFC 2253 writes it."""


class RbacSubject(Protocol):
    """Who asks. ``request`` is None for a raw connection; headers are then absent and paths fit nothing."""

    connection: ConnectionInfo
    request: RequestHead | None
    remote_address: Address
    dynamic_metadata: dict[str, dict[str, Any]] | None
    filter_state: dict[str, Any] | None
    route: NamedRoute | None


FindPolicy = Callable[[Any], str | None]
"""The name of the first policy that fits an ``RbacSubject``, or None."""

_OnHead = Callable[[Any], bool]


class _HeadTest:
    """A condition that looks at the request's head only, and so needs no more handed to it."""

    __slots__ = ("test",)

    def __init__(self, test: _OnHead) -> None:
        self.test = test


_Condition: TypeAlias = bool | _HeadTest | Callable[[Any], bool]
"""Decided already, or asked of the head, or asked of the subject."""

_KNOWN_ADDRESSES = 1024


def compile_rbac(rules: Rbac, http: bool = True) -> FindPolicy:
    """The policies in the order of their names, as one function. ``http`` is False where subjects have no request."""
    index = build_index(ordered(rules.policies), http, lambda policy: compile_policy(policy, http))
    return walk_rbac(rules, http) if index is None else index.find


def ordered(policies: Iterable[Policy]) -> list[Policy]:
    """The policies as they are asked: in the order of their names."""
    return sorted(policies, key=lambda one: one.name)


def walk_rbac(rules: Rbac, http: bool = True) -> FindPolicy:
    """As ``compile_rbac``, by asking every policy: quickest where there are few conditions."""
    policies = [(policy.name, _policy(policy, http)) for policy in ordered(rules.policies)]
    possible = [(name, condition) for name, condition in policies if condition is not False]
    if not possible:
        return lambda subject: None
    if all(isinstance(condition, _HeadTest) for _, condition in possible):
        return _find_by_head([(name, condition.test) for name, condition in possible])  # type: ignore[union-attr]
    return _find(tuple((name, _on_subject(condition)) for name, condition in possible))


def _find_by_head(policies: list[tuple[str, _OnHead]]) -> FindPolicy:
    frozen = tuple(policies)

    def find(subject: Any) -> str | None:
        request = subject.request
        for name, test in frozen:
            if test(request):
                return name
        return None

    return find


def _find(policies: tuple[tuple[str, Callable[[Any], bool]], ...]) -> FindPolicy:
    if len(policies) == 1:
        only, fits = policies[0]
        return lambda subject: only if fits(subject) else None

    def find(subject: Any) -> str | None:
        for name, test in policies:
            if test(subject):
                return name
        return None

    return find


def allows(action: str, policy: str | None) -> bool:
    """Whether ``action`` lets pass what ``policy`` (None: no policy) fits."""
    if action == "ALLOW":
        return policy is not None
    return action != "DENY" or policy is None


def compile_policy(policy: Policy, http: bool = True) -> Callable[[Any], bool]:
    """One policy as a condition on an ``RbacSubject``."""
    return _on_subject(_policy(policy, http))


def compile_permission(rule: Permission, http: bool = True) -> Callable[[Any], bool]:
    """One permission as a condition on an ``RbacSubject``."""
    return _on_subject(_permission(rule, http))


def compile_principal(rule: Principal, http: bool = True) -> Callable[[Any], bool]:
    """One principal as a condition on an ``RbacSubject``."""
    return _on_subject(_principal(rule, http))


# Conditions and their combinations. What is decided at load is folded away.


def _policy(policy: Policy, http: bool) -> _Condition:
    return _all(
        [
            _any([_permission(rule, http) for rule in policy.permissions]),
            _any([_principal(rule, http) for rule in policy.principals]),
            True if policy.condition is None else compile_policy_condition(policy.condition),
        ]
    )


def compile_policy_condition(condition: CelCondition) -> Callable[[Any], bool]:
    """An expression as a condition on an ``RbacSubject``. Raises CelProblem for one that configuration refuses."""
    from sidecar.core.cel import compile_condition  # large modules, that few rules need
    from sidecar.core.cel_attributes import REQUEST_ATTRIBUTES

    return compile_condition(condition, REQUEST_ATTRIBUTES)


def _on_subject(condition: _Condition) -> Callable[[Any], bool]:
    if isinstance(condition, bool):
        return lambda subject: condition
    if isinstance(condition, _HeadTest):
        test = condition.test
        return lambda subject: test(subject.request)
    return condition


def _all(conditions: Iterable[_Condition]) -> _Condition:
    left = [condition for condition in conditions if condition is not True]
    if False in left:
        return False
    heads = [condition.test for condition in left if isinstance(condition, _HeadTest)]
    others = [condition for condition in left if not isinstance(condition, _HeadTest | bool)]
    if not others:
        return _HeadTest(_conjunction(heads)) if heads else True
    if not heads:
        return _conjunction(others)
    head, other = _conjunction(heads), _conjunction(others)
    return lambda subject: head(subject.request) and other(subject)


def _any(conditions: Iterable[_Condition]) -> _Condition:
    left = [condition for condition in conditions if condition is not False]
    if True in left:
        return True
    heads = [condition.test for condition in left if isinstance(condition, _HeadTest)]
    others = [condition for condition in left if not isinstance(condition, _HeadTest | bool)]
    if not others:
        return _HeadTest(_disjunction(heads)) if heads else False
    if not heads:
        return _disjunction(others)
    head, other = _disjunction(heads), _disjunction(others)
    return lambda subject: head(subject.request) or other(subject)


def _not(condition: _Condition) -> _Condition:
    if isinstance(condition, bool):
        return not condition
    if isinstance(condition, _HeadTest):
        test = condition.test
        return _HeadTest(lambda request: not test(request))
    ask = condition
    return lambda subject: not ask(subject)


def _conjunction(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda subject: first(subject) and second(subject)
    frozen = tuple(tests)

    def every(subject: Any) -> bool:
        for test in frozen:
            if not test(subject):
                return False
        return True

    return every


def _disjunction(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda subject: first(subject) or second(subject)
    frozen = tuple(tests)

    def some(subject: Any) -> bool:
        for test in frozen:
            if test(subject):
                return True
        return False

    return some


def _permission(rule: Permission, http: bool) -> _Condition:
    match rule:
        case AndPermissions():
            return _all([_permission(inner, http) for inner in rule.rules])
        case OrPermissions():
            return _either(rule.rules, lambda inner: _permission(inner, http), http)
        case NotPermission():
            return _not(_permission(rule.rule, http))
        case DestinationIp():
            inside = _in_range(rule.range)
            return lambda subject: inside(subject.connection.local_address)
        case DestinationPortRange():
            start, end = rule.start, rule.end
            return lambda subject: start <= subject.connection.local_address.port < end
        case RequestedServerName():
            name = compile_string(rule.name)
            return lambda subject: name(subject.connection.requested_server_name.encode())
        case _:
            return _common(rule, http)


def _principal(rule: Principal, http: bool) -> _Condition:
    match rule:
        case AndPrincipals():
            return _all([_principal(inner, http) for inner in rule.ids])
        case OrPrincipals():
            return _either(rule.ids, lambda inner: _principal(inner, http), http)
        case NotPrincipal():
            return _not(_principal(rule.id, http))
        case Authenticated():
            return _authenticated(rule.principal_name)
        case PeerIp():
            return _peer_ip(rule)
        case FilterState():
            return _filter_state(rule)
        case MtlsAuthenticated():
            return _mtls_authenticated(rule.san_matcher)
        case _:
            return _common(rule, http)


def _common(rule: AnyRule | HeaderMatcher | PathMatcher | SourcedMetadata, http: bool) -> _Condition:
    match rule:
        case AnyRule():
            return True
        case HeaderMatcher():
            test = _header(rule)
            return _HeadTest(test) if http else test(NO_HEADERS)
        case PathMatcher():
            return _HeadTest(_path(rule)) if http else False
        case SourcedMetadata():
            return _metadata(rule)


def _either(rules: Sequence[Any], compile_rule: Callable[[Any], _Condition], http: bool) -> _Condition:
    """One at least of ``rules``. Methods, of which there may be many, are looked up in one set."""
    methods = frozenset(rule.match.value for rule in rules if _is_method(rule)) if http else frozenset()
    if len(methods) < 2:
        return _any([compile_rule(rule) for rule in rules])
    others = [compile_rule(rule) for rule in rules if not _is_method(rule)]
    return _any([_HeadTest(lambda request: request.method in methods), *others])


def _is_method(rule: Any) -> bool:
    if not isinstance(rule, HeaderMatcher) or rule.name != b":method" or rule.invert_match:
        return False
    match = rule.match
    return isinstance(match, StringMatcher) and match.match_pattern == "exact" and not match.ignore_case


def _header(matcher: HeaderMatcher) -> _OnHead:
    if _is_method(matcher):
        method: bytes = matcher.match.value  # type: ignore[union-attr]
        return lambda request: request.method == method
    return compile_header(matcher)


def _path(matcher: PathMatcher) -> _OnHead:
    path = matcher.path
    plain = path.value != b"" and b"?" not in path.value and b"#" not in path.value
    if plain and path.match_pattern == "prefix" and not path.ignore_case:
        prefix = path.value
        return lambda request: request.path.startswith(prefix)
    test = compile_string(path)
    return lambda request: request.path != b"" and test(path_only(request.path))


def _in_range(network: CidrRange) -> Callable[[Address], bool]:
    """Whether an address lies in ``network``; the answers for the latest addresses are kept."""
    inside = compile_cidr_ranges((network,))
    known: dict[str | None, bool] = {}

    def matches(address: Address) -> bool:
        answer = known.get(address.ip)
        if answer is None:
            if len(known) >= _KNOWN_ADDRESSES:
                known.clear()
            answer = known[address.ip] = inside(address)
        return answer

    return matches


def _peer_ip(rule: PeerIp) -> Callable[[Any], bool]:
    inside = _in_range(rule.range)
    match rule.kind:
        case "direct_remote_ip":
            return lambda subject: inside(subject.connection.direct_remote_address)
        case "source_ip":
            return lambda subject: inside(subject.connection.remote_address)
        case _:
            return lambda subject: inside(subject.remote_address)


def _authenticated(name: StringMatcher | None) -> Callable[[Any], bool]:
    if name is None:
        return lambda subject: subject.connection.tls is not None and bool(subject.connection.tls.presented)
    test = compile_string(name)

    def matches(subject: Any) -> bool:
        peer: PeerCertificate | None = subject.connection.tls
        if peer is None or not peer.presented:  # a pattern may fit the empty subject of nobody
            return False
        return any(map(test, peer.uri_sans)) or any(map(test, peer.dns_sans)) or test(peer.subject)

    return matches


def _mtls_authenticated(san_matcher: SubjectAltNameMatcher | None) -> Callable[[Any], bool]:
    """Every certificate that a client shows is validated here, or its handshake fails."""
    if san_matcher is None:
        return lambda subject: subject.connection.tls is not None and bool(subject.connection.tls.presented)
    from sidecar.core.san_match import compile_san

    test = compile_san(san_matcher)

    def matches(subject: Any) -> bool:
        tls = subject.connection.tls
        return tls is not None and tls.peer is not None and any(test(kind, value) for kind, value in tls.peer.sans)

    return matches


def _filter_state(rule: FilterState) -> Callable[[Any], bool]:
    key = rule.key
    if rule.string is None:
        inside = compile_cidr_ranges(rule.ranges)

        def is_inside(subject: Any) -> bool:
            value = (subject.filter_state or {}).get(key)
            return isinstance(value, Address) and inside(value)

        return is_inside
    test = compile_string(rule.string)

    def matches(subject: Any) -> bool:
        value = (subject.filter_state or {}).get(key)
        if isinstance(value, str):
            value = value.encode()
        return isinstance(value, bytes) and test(value)

    return matches


def _metadata(rule: SourcedMetadata) -> Callable[[Any], bool]:
    test = compile_metadata(rule.matcher)
    if rule.source == "DYNAMIC":
        return lambda subject: test(subject.dynamic_metadata)
    return lambda subject: subject.route is not None and test(subject.route.metadata)
