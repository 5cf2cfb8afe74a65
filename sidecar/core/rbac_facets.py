"""What a request or its connection shows to RBAC's conditions: each property as the set of those that hold of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidecar.core.matching import path_only
from sidecar.core.rbac_atoms import AddressAtoms, MetadataAtoms, TextAtoms


class Facet(Protocol):
    """One property that conditions look at. ``of_connection``: it stays the same for all requests of a connection."""

    of_connection: bool

    def compile(self) -> Callable[[Any], int]:
        """What is called with an ``RbacSubject`` and gives the atoms that hold. No atom is added afterwards."""
        ...


class HeaderFacet:
    """The values of a header or pseudo-header."""

    of_connection = False

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.present = 1
        self.text = TextAtoms(first=2)

    def compile(self) -> Callable[[Any], int]:
        of, name, present = self.text.compile(), self.name, self.present
        if name == b":method":
            return lambda subject: of(subject.request.method) | present
        if name[:1] == b":" or name == b"host":

            def of_pseudo(subject: Any) -> int:
                value = subject.request.lookup(name)
                return 0 if value is None else of(value) | present

            return of_pseudo

        def of_field(subject: Any) -> int:
            head = subject.request
            value = head.index.get(name)
            if value is None:
                return 0
            if b"," in value and head.repeats:
                atoms = present
                for one in head.get_all(name):
                    atoms |= of(one)
                return atoms
            return of(value) | present

        return of_field


class PathFacet:
    """The path without query and fragment."""

    of_connection = False

    def __init__(self) -> None:
        self.text = TextAtoms()

    def compile(self) -> Callable[[Any], int]:
        of = self.text.compile()

        def of_path(subject: Any) -> int:
            path = subject.request.path
            if b"?" in path or b"#" in path:
                path = path_only(path)
                return of(path)
            return of(path) if path else 0

        return of_path


class PeerFacet:
    """Whom the TLS peer's certificate names."""

    of_connection = True

    def __init__(self) -> None:
        self.presented = 1
        self.text = TextAtoms(first=2)

    def compile(self) -> Callable[[Any], int]:
        of, presented = self.text.compile(), self.presented

        def of_peer(subject: Any) -> int:
            peer = subject.connection.tls
            if peer is None or not peer.presented:
                return 0
            atoms = presented | of(peer.subject)
            for name in (*peer.uri_sans, *peer.dns_sans):
                atoms |= of(name)
            return atoms

        return of_peer


class ServerNameFacet:
    """The name that the TLS client asked for."""

    of_connection = True

    def __init__(self) -> None:
        self.text = TextAtoms()

    def compile(self) -> Callable[[Any], int]:
        of = self.text.compile()
        return lambda subject: of(subject.connection.requested_server_name.encode())


class PortFacet:
    """The port that the client connected to."""

    of_connection = True

    def __init__(self) -> None:
        self.ranges: dict[tuple[int, int], int] = {}

    def atom(self, start: int, end: int) -> int:
        """The bit of the ports from ``start`` up to, and without, ``end``."""
        return self.ranges.setdefault((start, end), 1 << len(self.ranges))

    def compile(self) -> Callable[[Any], int]:
        ranges = tuple((start, end, bit) for (start, end), bit in self.ranges.items())

        def of_port(subject: Any) -> int:
            port, atoms = subject.connection.local_address.port, 0
            for start, end, bit in ranges:
                if start <= port < end:
                    atoms |= bit
            return atoms

        return of_port


_ADDRESSES: dict[str, Callable[[Any], Any]] = {
    "destination_ip": lambda subject: subject.connection.local_address,
    "direct_remote_ip": lambda subject: subject.connection.direct_remote_address,
    "source_ip": lambda subject: subject.connection.remote_address,
    "remote_ip": lambda subject: subject.remote_address,
}


class AddressFacet:
    """One of the addresses."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.of_connection = kind != "remote_ip"
        self.ranges = AddressAtoms()

    def compile(self) -> Callable[[Any], int]:
        of, address = self.ranges.compile(), _ADDRESSES[self.kind]
        if self.kind == "remote_ip":
            return lambda subject: of(subject.remote_address)
        return lambda subject: of(address(subject))


class MetadataFacet:
    """The value under some keys of the dynamic metadata, or of the route's."""

    of_connection = False

    def __init__(self, source: str, keys: tuple[str, ...]) -> None:
        self.source = source
        self.known = 1
        self.values = MetadataAtoms(keys, first=2)

    def compile(self) -> Callable[[Any], int]:
        of, known = self.values.compile(), self.known
        if self.source == "DYNAMIC":
            return lambda subject: of(subject.dynamic_metadata) | known

        def of_route(subject: Any) -> int:
            route = subject.route
            return 0 if route is None else of(route.metadata) | known

        return of_route
