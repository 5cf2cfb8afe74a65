"""Which route a request takes: the compiled form of one route configuration.

Source: Envoy's ``RouteConfiguration`` reference: the virtual host by domain, then its first route that matches.
"""

from __future__ import annotations

from random import Random
from typing import Any

from sidecar.config.route import RouteConfiguration
from sidecar.config.route_match import RouteMatch
from sidecar.core.explanation import ENDS, PASSED_OVER, TAKEN, Step
from sidecar.core.head import RequestHead
from sidecar.router.explanation import explain_match
from sidecar.router.header_mutation import CompileFormat
from sidecar.router.path_match import EXACT, INDEX_FROM, PREFIX, PathIndex, PathTest, classify, plain_path
from sidecar.router.redirect import forwarded_proto
from sidecar.router.route import Route
from sidecar.router.route_compiler import RouteCompiler
from sidecar.router.route_conditions import Condition, compile_conditions
from sidecar.router.virtual_hosts import VirtualHosts

Entry = tuple[int, bytes, PathTest, Condition | None, Route]
"""How the path is tested, what it is compared with, the test in full, the other conditions, and the route."""

_ENDS_PATH = (ord("?"), ord("#"))

_TLS_REQUIREMENTS = {"NONE": 0, "EXTERNAL_ONLY": 1, "ALL": 2}


class HostRoutes:
    """The routes of one virtual host, ready to be tried."""

    __slots__ = ("name", "entries", "pathless", "rolls", "index", "require_tls", "tls_redirect", "matches", "always")

    def __init__(
        self, name: str, matches: tuple[RouteMatch, ...], routes: tuple[Route, ...], ignore_parameters: bool
    ) -> None:
        self.name = name
        self.matches = matches
        self.entries: tuple[Entry, ...] = tuple(
            (*_classified(match, ignore_parameters), compile_conditions(match), route)
            for match, route in zip(matches, routes, strict=True)
        )
        self.pathless = tuple(
            entry
            for match, entry in zip(matches, self.entries, strict=True)
            if match.path_specifier == "connect_matcher"
        )
        """The routes for requests without a path."""
        self.rolls = any(match.runtime_fraction is not None for match in matches)
        self.index = PathIndex(matches) if len(matches) >= INDEX_FROM else None
        self.require_tls = 0
        self.tls_redirect: Route | None = None
        self.always = _always(self.entries)
        """The route of every request that has a path, where there is no question."""

    def __repr__(self) -> str:
        return f"<HostRoutes {self.name}: {len(self.entries)} routes>"


def _always(entries: tuple[Entry, ...]) -> Route | None:
    """The first route, if it takes all paths and asks for nothing else."""
    if entries:
        kind, expected, _, condition, route = entries[0]
        if kind == PREFIX and expected == b"/" and condition is None:
            return route
    return None


def _classified(match: RouteMatch, ignore_parameters: bool) -> tuple[int, bytes, PathTest]:
    kind, test = classify(match, ignore_parameters)
    return kind, match.path, test


class RouteTable:
    """Answers which route a request takes. Immutable but for a bounded memo of authorities, and for ``become``."""

    __slots__ = ("name", "routes", "internal_only_headers", "_hosts", "_known", "_random", "_ignore_parameters")

    def __init__(
        self,
        name: str,
        routes: tuple[Route, ...],
        internal_only_headers: tuple[bytes, ...],
        hosts: VirtualHosts[HostRoutes],
        random: Random,
        ignore_parameters: bool,
    ) -> None:
        self.name = name
        self.routes = routes
        """Every route there is, in order; behind them the weighted clusters' entries."""
        self.internal_only_headers = internal_only_headers
        self._hosts = hosts
        self._known = hosts.known
        self._random = random
        self._ignore_parameters = ignore_parameters

    def become(self, other: RouteTable) -> None:
        """Answer as another table does, from the next request on: whoever knows this one need not hear of it."""
        for slot in RouteTable.__slots__:
            setattr(self, slot, getattr(other, slot))

    def match(self, request: RequestHead, stream: Any) -> Route | None:
        """The route for the request, None when no route of its virtual host matches or there is no such host."""
        host = self._known.get(request.authority) or self._hosts.find(request.authority)
        if host.require_tls:
            route = _require_tls(host, request)
            if route is not None:
                return route
        path = request.path
        if host.always is not None and path.startswith(b"/"):
            return host.always
        roll = self._random.getrandbits(63) if host.rolls else 0
        if not path:
            entries = host.pathless
        elif host.index is not None:
            return self._match_by_index(host, request, roll, stream)
        else:
            entries = host.entries
        plain: bytes | None = None
        for kind, expected, test, condition, route in entries:
            if kind == PREFIX:
                if not path.startswith(expected):
                    continue
            elif kind == EXACT:
                if path != expected and not (path.startswith(expected) and path[len(expected)] in _ENDS_PATH):
                    continue
            else:
                if plain is None:
                    plain = plain_path(path, self._ignore_parameters)
                if not test(request, plain):
                    continue
            if condition is None or condition(request, roll, stream):
                return route
        return None

    def certain(self, authority: bytes) -> Route | None:
        """What ``match`` answers for all requests to an authority whose paths begin with a slash; None if that depends."""
        host = self._hosts.find(authority)
        return None if host.require_tls else host.always

    def _match_by_index(self, host: HostRoutes, request: RequestHead, roll: int, stream: Any) -> Route | None:
        plain = plain_path(request.path, self._ignore_parameters)
        entries = host.entries
        assert host.index is not None
        for position in host.index.candidates(plain):
            _, _, test, condition, route = entries[position]
            if test(request, plain) and (condition is None or condition(request, roll, stream)):
                return route
        return None

    def explain(self, request: RequestHead, stream: Any) -> list[Step]:
        """What ``match`` finds, in words: the virtual host, why each route was passed over, and the route taken.

        A route for a share of the requests is decided anew, with another random number.
        """
        host = self._hosts.find(request.authority)
        authority = request.authority.decode("latin-1")
        if not host.name and not host.entries:
            return [Step("virtual host", "", ENDS, f"no virtual host of {self.name!r} has a domain for {authority!r}")]
        steps = [Step("virtual host", host.name, TAKEN, f"virtual host {host.name!r} serves {authority!r}")]
        if _require_tls(host, request) is not None:
            text = "it requires TLS, and the request came without: redirected to https"
            return [*steps, Step("virtual host", host.name, ENDS, text)]
        roll = self._random.getrandbits(63)
        for number, (match, entry) in enumerate(zip(host.matches, host.entries, strict=True)):
            found = entry[4]
            route = f"route {number}" + (f" {found.name!r}" if found.name else "")
            failed = explain_match(match, request, roll, stream, self._ignore_parameters)
            metadata = found.metadata or {}
            if not failed:
                return [*steps, Step("route", found.name, TAKEN, f"{route} matches", metadata=metadata)]
            text = f"{route} does not match: {'; '.join(failed)}"
            steps.append(Step("route", found.name, PASSED_OVER, text, metadata=metadata))
        return [*steps, Step("route", "", ENDS, "no route matches")]

    def __repr__(self) -> str:
        return f"<RouteTable {self.name}: {len(self.routes)} routes and weighted clusters>"


def _require_tls(host: HostRoutes, request: RequestHead) -> Route | None:
    if not host.require_tls or forwarded_proto(request) == b"https":
        return None
    if host.require_tls == 1 and request.index.get(b"x-envoy-internal") == b"true":
        return None
    return host.tls_redirect


def compile_route_configuration(
    configuration: RouteConfiguration,
    compile_format: CompileFormat,
    random: Random,
    suppress_envoy_headers: bool = False,
) -> RouteTable:
    """Compile a route configuration.

    ``compile_format`` turns a format string into a function of the stream; ``random`` decides what is left to chance.
    ``suppress_envoy_headers`` is the router filter's setting, and keeps ``x-envoy-original-path`` and ``-host`` out of
    requests. Raises ValueError for a format string that is wrong.
    """
    compiler = RouteCompiler(configuration, compile_format, not suppress_envoy_headers)
    ignore_parameters = configuration.ignore_path_parameters_in_path_matching
    hosts = []
    every: list[Route] = []
    for config in configuration.virtual_hosts:
        routes = tuple(compiler.compile(config, route) for route in config.routes)
        every += routes
        matches = tuple(route.match for route in config.routes)
        host = HostRoutes(config.name, matches, routes, ignore_parameters)
        host.require_tls = _TLS_REQUIREMENTS[config.require_tls]
        if host.require_tls:
            host.tls_redirect = compiler.tls_redirect(config)
        hosts.append((config.domains, host))
    nobody = HostRoutes("", (), (), ignore_parameters)
    return RouteTable(
        configuration.name,
        (*every, *compiler.entries),
        configuration.internal_only_headers,
        VirtualHosts(hosts, nobody, configuration.ignore_port_in_host_matching),
        random,
        ignore_parameters,
    )
