"""Names that requests ask for, looked up and kept: what the filter of a dynamic forward proxy is handed of the cluster stage."""

from __future__ import annotations

from typing import Any, Protocol


class Asker(Protocol):
    """Who waits for a name."""

    def on_name(self) -> None:
        """It was looked up, one way or the other. Called later, and once."""
        ...


class Name(Protocol):
    """A name, which may have been looked up (`answered`). If there is no `address` then, `details` says why in Envoy's words."""

    @property
    def answered(self) -> bool: ...
    @property
    def address(self) -> object | None: ...
    @property
    def details(self) -> str: ...


class DnsCache(Protocol):
    """One of the caches."""

    def admit(self) -> bool:
        """Whether one more request may ask for a name; one that may not is counted."""
        ...

    def look_up(self, authority: bytes, default_port: int) -> Name | None:
        """The name in an authority, asked for if it is new; None if there is no room for it."""
        ...

    def wait(self, name: Any, asker: Asker) -> None:
        """Tell ``asker`` when the name, which is not answered yet, is."""
        ...

    def forget(self, name: Any, asker: Asker) -> None:
        """It waits no more."""
        ...

    def release(self) -> None:
        """Whoever has opened the cache needs it no more."""
        ...


class DnsCaches(Protocol):
    """All caches of a worker, by their names."""

    def open(self, config: Any) -> DnsCache:
        """The cache of a ``DnsCacheConfig``. Raises ValueError if there is one of its name with other settings."""
        ...

    def default_port(self, cluster: str) -> int | None:
        """The port of names without one, if the cluster finds its hosts by the names in requests; None if it does not."""
        ...
