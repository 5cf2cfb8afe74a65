"""Listeners by address: where `use_original_dst` takes a connection whose original destination is another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.address import SocketAddress
from sidecar.core.address import Address
from sidecar.listener.sockets import addresses_of

if TYPE_CHECKING:
    from sidecar.listener.listener import Listener


class Directory:
    """All listeners of a worker by the addresses that they are configured for, bound or not."""

    __slots__ = ("_exact", "_wildcards")

    def __init__(self) -> None:
        self._exact: dict[str, Listener] = {}
        self._wildcards: dict[tuple[int, int], Listener] = {}

    def add(self, listener: Listener) -> None:
        """Make a listener known. The first for an address counts."""
        for address, _ in addresses_of(listener.config):
            if not isinstance(address, SocketAddress) or not address.port_value:
                continue
            known = Address(address.address.partition("%")[0], address.port_value)
            parsed = known.parsed
            assert parsed is not None
            if parsed.is_unspecified:
                self._wildcards.setdefault((parsed.version, known.port), listener)
                if address.ipv4_compat:
                    self._wildcards.setdefault((4, known.port), listener)
            else:
                self._exact.setdefault(Address(str(parsed), known.port).text, listener)

    def remove(self, listener: Listener) -> None:
        """A listener is not to be found any more."""
        self._exact = {key: found for key, found in self._exact.items() if found is not listener}
        self._wildcards = {key: found for key, found in self._wildcards.items() if found is not listener}

    def find(self, address: Address) -> Listener | None:
        """The listener for exactly this address, or the one for all addresses of its port."""
        parsed = address.parsed
        if parsed is None:
            return None
        found = self._exact.get(Address(str(parsed), address.port).text)
        return found or self._wildcards.get((parsed.version, address.port))

    def __repr__(self) -> str:
        return f"<Directory of {len(self._exact) + len(self._wildcards)} addresses>"
