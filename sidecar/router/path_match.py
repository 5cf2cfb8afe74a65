"""The path conditions of routes, and an index over them for virtual hosts that have many.

Source: Envoy's ``RouteMatch`` reference. Paths are compared without query and fragment, and without path parameters
where the route configuration says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sidecar.config.route_match import RouteMatch
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_regex, path_only

PREFIX, EXACT, OTHER = range(3)
"""How the table tests a path: inline by prefix or by equality, or by calling a ``PathTest``."""

_PARAMETERS = re.compile(rb";[^/]*")

PathTest = Callable[[RequestHead, bytes], bool]
"""From the request and its path without query (see ``plain_path``) to whether they match."""

INDEX_FROM = 16
"""Virtual hosts with at least so many routes are looked up by index; measured: below it, trying in turn is quicker."""


def plain_path(target: bytes, ignore_parameters: bool) -> bytes:
    """The part of a request target that is compared."""
    path = path_only(target)
    return _PARAMETERS.sub(b"", path) if ignore_parameters and b";" in path else path


def classify(match: RouteMatch, ignore_parameters: bool) -> tuple[int, PathTest]:
    """How the table tests this path. The test is given for every kind: what is inline is a shortcut for it."""
    path = match.path
    simple = match.case_sensitive and not ignore_parameters and b"?" not in path and b"#" not in path
    match match.path_specifier:
        case "prefix":
            if simple:
                return PREFIX, _prefix(path)
            return OTHER, _prefix(path) if match.case_sensitive else _prefix_ignoring_case(path.lower())
        case "path":
            if simple:
                return EXACT, _exact(path)
            return OTHER, _exact(path) if match.case_sensitive else _exact_ignoring_case(path.lower())
        case "safe_regex":
            test = compile_regex(path)
            return OTHER, lambda request, plain: test(plain)
        case "path_separated_prefix":
            if match.case_sensitive:
                return OTHER, _separated_prefix(path)
            return OTHER, _separated_prefix_ignoring_case(path.lower())
        case _:
            return OTHER, _is_connect


def _is_connect(request: RequestHead, plain: bytes) -> bool:
    return request.method == b"CONNECT"


def _prefix(prefix: bytes) -> PathTest:
    return lambda request, plain: plain.startswith(prefix)


def _prefix_ignoring_case(prefix: bytes) -> PathTest:
    return lambda request, plain: plain.lower().startswith(prefix)


def _exact(path: bytes) -> PathTest:
    return lambda request, plain: plain == path


def _exact_ignoring_case(path: bytes) -> PathTest:
    return lambda request, plain: plain.lower() == path


def _separated_prefix(prefix: bytes) -> PathTest:
    below = prefix + b"/"
    return lambda request, plain: plain == prefix or plain.startswith(below)


def _separated_prefix_ignoring_case(prefix: bytes) -> PathTest:
    test = _separated_prefix(prefix)
    return lambda request, plain: test(request, plain.lower())


class PathIndex:
    """Which of many routes a path can match at all: their positions, in order.

    Exact paths stand in one dict, prefixes in one dict for each length; what cannot be looked up (expressions, paths
    that ignore case, CONNECT) is a candidate always. Answering costs a lookup for each length of prefix there is.
    """

    __slots__ = ("_exact", "_prefixes", "_always")

    def __init__(self, matches: Iterable[RouteMatch]) -> None:
        exact: dict[bytes, list[int]] = {}
        prefixes: dict[int, dict[bytes, list[int]]] = {}
        always: list[int] = []
        for position, match in enumerate(matches):
            if match.case_sensitive and match.path_specifier == "path":
                exact.setdefault(match.path, []).append(position)
            elif match.case_sensitive and match.path_specifier in ("prefix", "path_separated_prefix"):
                prefixes.setdefault(len(match.path), {}).setdefault(match.path, []).append(position)
            else:
                always.append(position)
        self._exact = {path: tuple(positions) for path, positions in exact.items()}
        self._prefixes = tuple(
            (length, {path: tuple(positions) for path, positions in prefixes[length].items()})
            for length in sorted(prefixes)
        )
        self._always = tuple(always)

    def candidates(self, plain: bytes) -> Iterable[int]:
        """The positions of the routes whose path may match, in order; their full tests are still to be made."""
        found = self._exact.get(plain, ())
        groups = 1 if found else 0
        size = len(plain)
        for length, table in self._prefixes:
            if length > size:
                break
            positions = table.get(plain[:length])
            if positions is not None:
                found += positions
                groups += 1
        if self._always:
            found += self._always
            groups += 1
        return sorted(found) if groups > 1 else found
