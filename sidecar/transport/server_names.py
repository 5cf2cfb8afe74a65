"""Which certificate a client gets that asks for a server name. Source: Envoy's default certificate selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sidecar.transport.contexts import LoadedCertificate

Made = TypeVar("Made")


class ServerNames(Generic[Made]):
    """What was made of the certificates for each name that they are for.

    ``make`` is called with the certificates that come into question together: of each kind of key (RSA, ECDSA) the
    first one. Equal sets are made once.
    """

    __slots__ = ("_exact", "_suffixes", "all", "mismatched", "unnamed")

    def __init__(
        self,
        certificates: Sequence[LoadedCertificate],
        full_scan: bool,
        make: Callable[[tuple[LoadedCertificate, ...]], Made],
    ) -> None:
        made: dict[tuple[int, ...], Made] = {}

        def of(chosen: Sequence[LoadedCertificate]) -> Made:
            first: dict[bool, LoadedCertificate] = {}
            for certificate in chosen:
                first.setdefault(certificate.details.is_ecdsa, certificate)
            together = tuple(first.values())
            key = tuple(id(certificate) for certificate in together)
            if key not in made:
                made[key] = make(together)
            return made[key]

        by_name: dict[str, list[LoadedCertificate]] = {}
        for certificate in certificates:
            for name in certificate.details.server_names:
                by_name.setdefault(name, []).append(certificate)
        self.unnamed = of(certificates)
        self.mismatched = self.unnamed if full_scan else of(certificates[:1])
        self._exact = {name: of(found) for name, found in by_name.items() if name[:2] != "*."}
        self._suffixes = {name[1:]: of(found) for name, found in by_name.items() if name[:2] == "*."}
        self.all = tuple(made.values())

    @property
    def matter(self) -> bool:
        """Whether the answer depends on the name."""
        return len(self.all) > 1

    def find(self, name: str) -> Made:
        """For a name in lower case, empty if the client sent none."""
        if not name:
            return self.unnamed
        found = self._exact.get(name)
        if found is None:
            dot = name.find(".", 1)
            if 0 < dot < len(name) - 1:
                found = self._suffixes.get(name[dot:])
        return self.mismatched if found is None else found

    def __repr__(self) -> str:
        return f"<ServerNames {len(self._exact)} exact, {len(self._suffixes)} wildcards, {len(self.all)} contexts>"
