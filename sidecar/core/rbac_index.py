"""Many RBAC policies asked at once: which may fit is looked up by what a request shows, not found by a walk.

Every condition is an *atom* of a *facet*: a property of the request (its path, its method, a header, ...) or of its
connection (the peer's identity, the addresses, ...). What a facet shows is turned into the set of its atoms that hold,
an integer with one bit for each, by dictionaries and sorted lists; a memo turns that set into the set of policies that
may fit, seen from this facet alone, by three-valued logic over the policies' conditions. The intersection over all
facets has the candidates in the order of their names. Those whose conditions are a conjunction of parts of one facet
each fit for certain; the others are asked. What the facets of a connection say is kept with the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.config.matcher import HeaderMatcher, Int64Range, PathMatcher, StringMatcher
from sidecar.config.rbac import (
    AndPermissions,
    AndPrincipals,
    AnyRule,
    Authenticated,
    DestinationIp,
    DestinationPortRange,
    MtlsAuthenticated,
    NotPermission,
    NotPrincipal,
    OrPermissions,
    OrPrincipals,
    PeerIp,
    Policy,
    RequestedServerName,
    SourcedMetadata,
)
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_header
from sidecar.core.rbac_facets import (
    AddressFacet,
    Facet,
    HeaderFacet,
    MetadataFacet,
    PathFacet,
    PeerFacet,
    PortFacet,
    ServerNameFacet,
)

NO_HEADERS = RequestHead(b"", b"", b"", [])
"""What rules about headers look at where there is no request."""

_MEMO = 4096
_FEW = 8
_ENGINES = 16


@dataclass(frozen=True, slots=True)
class _Leaf:
    facet: tuple[Any, ...]
    bit: int


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[_Formula, ...]


@dataclass(frozen=True, slots=True)
class _Some:
    parts: tuple[_Formula, ...]


@dataclass(frozen=True, slots=True)
class _Not:
    part: _Formula


class _Opaque:
    """A condition that no facet has: only asking tells."""

    __slots__ = ()


_Formula: TypeAlias = bool | _Leaf | _All | _Some | _Not | _Opaque
_OPAQUE = _Opaque()


class _Formulas:
    """Turns rules into formulas, and makes the facets that they need."""

    def __init__(self, http: bool) -> None:
        self.http = http
        self.facets: dict[tuple[Any, ...], Any] = {}
        self.leaves = 0

    def policy(self, policy: Policy) -> _Formula:
        permissions = _some(map(self.rule, policy.permissions))
        principals = _some(map(self.rule, policy.principals))
        return _all([permissions, principals, True if policy.condition is None else _OPAQUE])

    def rule(self, rule: Any) -> _Formula:
        match rule:
            case AnyRule():
                return True
            case AndPermissions(inner) | AndPrincipals(inner):
                return _all(map(self.rule, inner))
            case OrPermissions(inner) | OrPrincipals(inner):
                return _some(map(self.rule, inner))
            case NotPermission(negated) | NotPrincipal(negated):
                return _not(self.rule(negated))
            case HeaderMatcher():
                return self._header(rule)
            case PathMatcher(path):
                return self._leaf(("path",), PathFacet, lambda facet: facet.text.atom(path)) if self.http else False
            case MtlsAuthenticated(None):
                return self._leaf(("peer",), PeerFacet, lambda facet: facet.presented)
            case Authenticated(None):
                return self._leaf(("peer",), PeerFacet, lambda facet: facet.presented)
            case Authenticated(name):
                assert name is not None
                named = self._leaf(("peer",), PeerFacet, lambda facet: facet.text.atom(name))
                return _all([self._leaf(("peer",), PeerFacet, lambda facet: facet.presented), named])
            case RequestedServerName(name):
                return self._leaf(("sni",), ServerNameFacet, lambda facet: facet.text.atom(name))
            case DestinationPortRange(start, end):
                return self._leaf(("port",), PortFacet, lambda facet: facet.atom(start, end))
            case DestinationIp(network):
                return self._address("destination_ip", network)
            case PeerIp(kind, network):
                return self._address(kind, network)
            case SourcedMetadata(matcher, source):
                keys = (matcher.filter, *matcher.path)
                key, make = ("metadata", source, keys), lambda: MetadataFacet(source, keys)
                holds = self._leaf(key, make, lambda facet: facet.values.atom(matcher.value))
                known = self._leaf(key, make, lambda facet: facet.known)
                return _all([known, _not(holds) if matcher.invert else holds])
        self.leaves += 1
        return _OPAQUE

    def _leaf(self, key: tuple[Any, ...], make: Callable[[], Any], atom: Callable[[Any], int]) -> _Formula:
        facet = self.facets.get(key)
        if facet is None:
            facet = self.facets[key] = make()
        self.leaves += 1
        return _Leaf(key, atom(facet))

    def _address(self, kind: str, network: Any) -> _Formula:
        return self._leaf((kind,), lambda: AddressFacet(kind), lambda facet: facet.ranges.atom(network))

    def _header(self, rule: HeaderMatcher) -> _Formula:
        match, invert = rule.match, rule.invert_match
        if not self.http:
            return compile_header(rule)(NO_HEADERS)
        key = ("header", rule.name)
        present = self._leaf(key, lambda: HeaderFacet(rule.name), lambda facet: facet.present)
        if isinstance(match, bool):
            return present if match != invert else _not(present)
        if rule.treat_missing_header_as_empty:
            return _OPAQUE
        value: StringMatcher | Int64Range = match
        holds = self._leaf(key, lambda: HeaderFacet(rule.name), lambda facet: facet.text.atom(value))
        return _all([present, _not(holds) if invert else holds])


def _all(parts: Iterable[_Formula]) -> _Formula:
    left: list[_Formula] = []
    for part in parts:
        if part is False:
            return False
        if isinstance(part, _All):
            left += part.parts
        elif part is not True:
            left.append(part)
    return True if not left else left[0] if len(left) == 1 else _All(tuple(left))


def _some(parts: Iterable[_Formula]) -> _Formula:
    left: list[_Formula] = []
    for part in parts:
        if part is True:
            return True
        if isinstance(part, _Some):
            left += part.parts
        elif part is not False:
            left.append(part)
    return False if not left else left[0] if len(left) == 1 else _Some(tuple(left))


def _not(part: _Formula) -> _Formula:
    return not part if isinstance(part, bool) else _Not(part)


def _seen(formula: _Formula, facet: tuple[Any, ...], atoms: int) -> bool | None:
    """The outcome as far as one facet knows it: None if it depends on others."""
    match formula:
        case bool():
            return formula
        case _Leaf(of, bit):
            return bool(atoms & bit) if of == facet else None
        case _Not(part):
            outcome = _seen(part, facet, atoms)
            return None if outcome is None else not outcome
        case _All(parts):
            known: bool | None = True
            for part in parts:
                outcome = _seen(part, facet, atoms)
                if outcome is False:
                    return False
                if outcome is None:
                    known = None
            return known
        case _Some(parts):
            known = False
            for part in parts:
                outcome = _seen(part, facet, atoms)
                if outcome is True:
                    return True
                if outcome is None:
                    known = None
            return known
    return None


def _facets(formula: _Formula) -> set[tuple[Any, ...] | None]:
    """What a formula looks at; None among it stands for what no facet has."""
    match formula:
        case _Leaf(of, _):
            return {of}
        case _Not(part):
            return _facets(part)
        case _All(parts) | _Some(parts):
            return set().union(*map(_facets, parts))
        case bool():
            return set()
    return {None}


def _certain(formula: _Formula) -> bool:
    """Whether a formula holds if no facet by itself says that it does not."""
    parts = formula.parts if isinstance(formula, _All) else (formula,)
    return all(len(found) <= 1 and None not in found for found in map(_facets, parts))


class _Column:
    """One facet: from what it shows to the policies that may fit by that."""

    __slots__ = ("atoms", "formulas", "key", "masks")

    def __init__(self, key: tuple[Any, ...], facet: Facet, formulas: Sequence[_Formula]) -> None:
        self.key = key
        self.atoms = facet.compile()
        self.formulas = formulas
        self.masks: dict[int, int] = {}

    def work_out(self, atoms: int) -> int:
        """The policies that may fit when these atoms hold and no others."""
        mask = 0
        for position, formula in enumerate(self.formulas):
            if _seen(formula, self.key, atoms) is not False:
                mask |= 1 << position
        if len(self.masks) >= _MEMO:
            self.masks.clear()
        self.masks[atoms] = mask
        return mask


class RbacIndex:
    """The policies that an ``RbacSubject`` may be looked up in. ``tests`` ask the policies one by one."""

    __slots__ = ("_certain", "_columns", "_names", "_of_connection", "_start", "_tests")

    def __init__(
        self,
        names: Sequence[str],
        formulas: Sequence[_Formula],
        facets: dict[tuple[Any, ...], Any],
        tests: Sequence[Callable[[Any], bool]],
    ) -> None:
        self._names = tuple(names)
        self._tests = tuple(tests)
        self._certain = sum(1 << position for position, formula in enumerate(formulas) if _certain(formula))
        self._start = (1 << len(formulas)) - 1
        columns = [(facet.of_connection, _Column(key, facet, formulas)) for key, facet in facets.items()]
        self._of_connection = tuple(column for of_connection, column in columns if of_connection)
        self._columns = tuple((one.atoms, one.masks, one) for of_connection, one in columns if not of_connection)

    def find(self, subject: Any) -> str | None:
        """The name of the first policy that fits, or None."""
        mask = self._start
        if self._of_connection:
            connection = subject.connection
            known = connection.rbac
            if known is None:
                known = connection.rbac = {}
            found = known.get(self)
            mask = self._look_at_connection(subject, known) if found is None else found
        for atoms_of, masks, column in self._columns:
            if not mask:
                return None
            atoms = atoms_of(subject)
            fitting = masks.get(atoms)
            mask &= column.work_out(atoms) if fitting is None else fitting
        certain = self._certain
        while mask:
            lowest = mask & -mask
            position = lowest.bit_length() - 1
            if lowest & certain or self._tests[position](subject):
                return self._names[position]
            mask ^= lowest
        return None

    def _look_at_connection(self, subject: Any, known: dict[Any, int]) -> int:
        mask = self._start
        for column in self._of_connection:
            atoms = column.atoms(subject)
            fitting = column.masks.get(atoms)
            mask &= column.work_out(atoms) if fitting is None else fitting
        if len(known) >= _ENGINES:  # engines that configuration has replaced since
            known.clear()
        known[self] = mask
        return mask

    def __repr__(self) -> str:
        return f"<RbacIndex of {len(self._names)} policies>"


def build_index(
    policies: Sequence[Policy], http: bool, test: Callable[[Policy], Callable[[Any], bool]], few: int = _FEW
) -> RbacIndex | None:
    """An index of policies, given in the order of their names, or None where a walk is as quick: where there are no
    more than ``few`` conditions.

    ``test`` compiles a policy so that it can be asked by itself.
    """
    formulas = _Formulas(http)
    made = [(policy, formula) for policy in policies if (formula := formulas.policy(policy)) is not False]
    if formulas.leaves <= few:
        return None
    return RbacIndex(
        [policy.name for policy, _ in made],
        [formula for _, formula in made],
        formulas.facets,
        [test(policy) for policy, _ in made],
    )
