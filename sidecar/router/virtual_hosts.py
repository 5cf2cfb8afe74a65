"""Which virtual host a request is for.

Source: Envoy's ``VirtualHost.domains`` reference: exact names first, then the longest ``*suffix``, then the longest
``prefix*``, then ``*``. Hosts are compared without regard to case; ports count unless configured otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Host = TypeVar("Host")

_MEMO_SIZE = 1024
_MEMO_KEY_SIZE = 255


def without_port(authority: bytes) -> bytes:
    """The host of an authority: what stands before its last colon, unless that is within brackets."""
    at = authority.rfind(b":")
    return authority if at < authority.rfind(b"]") or at < 0 else authority[:at]


class VirtualHosts(Generic[Host]):
    """From authority to virtual host. Answers are remembered, for a bounded number of short authorities."""

    __slots__ = ("only", "known", "_exact", "_suffixes", "_prefixes", "_default", "_ignore_port")

    def __init__(self, hosts: Iterable[tuple[Iterable[bytes], Host]], nobody: Host, ignore_port: bool) -> None:
        """``hosts`` pairs lower-case domains with their host; ``nobody`` stands for no host at all."""
        self._exact: dict[bytes, Host] = {}
        suffixes: dict[int, dict[bytes, Host]] = {}
        prefixes: dict[int, dict[bytes, Host]] = {}
        self._default = nobody
        for domains, host in hosts:
            for domain in domains:
                if domain == b"*":
                    self._default = host
                elif domain[:1] == b"*":
                    suffixes.setdefault(len(domain) - 1, {})[domain[1:]] = host
                elif domain[-1:] == b"*":
                    prefixes.setdefault(len(domain) - 1, {})[domain[:-1]] = host
                else:
                    self._exact[domain] = host
        self._suffixes = tuple(sorted(suffixes.items(), reverse=True))
        self._prefixes = tuple(sorted(prefixes.items(), reverse=True))
        self._ignore_port = ignore_port
        self.only = None if self._exact or suffixes or prefixes else self._default
        """The host that serves every request, if there is no other."""
        self.known: dict[bytes, Host] = {}
        """What has been found so far, for callers to look into before they call ``find``."""

    def find(self, authority: bytes) -> Host:
        """The host for an authority, by the rules; remembered in ``known``."""
        host = self._find(authority)
        if len(authority) <= _MEMO_KEY_SIZE:
            if len(self.known) >= _MEMO_SIZE:
                self.known.clear()
            self.known[authority] = host
        return host

    def _find(self, authority: bytes) -> Host:
        if self.only is not None:
            return self.only
        name = (without_port(authority) if self._ignore_port else authority).lower()
        found = self._exact.get(name)
        if found is not None:
            return found
        size = len(name)
        for length, table in self._suffixes:
            if length < size and (found := table.get(name[size - length :])) is not None:
                return found
        for length, table in self._prefixes:
            if length < size and (found := table.get(name[:length])) is not None:
                return found
        return self._default
