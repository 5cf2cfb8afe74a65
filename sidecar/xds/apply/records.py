"""What came of the resources of one type, for those who look: the last good version of each, and why a newer one is refused.

Source: `envoy.admin.v3.ConfigDump`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sidecar.core.discovery import DiscoveredResource


class Failure:
    """A version that was refused: `envoy.admin.v3.UpdateFailureState`. ``at`` is in seconds since the epoch."""

    __slots__ = ("at", "payload", "reason", "version")

    def __init__(self, payload: Any, version: str, reason: str, at: float) -> None:
        self.payload = payload
        self.version = version
        self.reason = reason
        self.at = at

    def __repr__(self) -> str:
        return f"<Failure of version {self.version!r}: {self.reason}>"


class Record:
    """A resource: the version that is in use, as it came, with the time of it (seconds since the epoch), and the refused one."""

    __slots__ = ("failure", "name", "payload", "updated", "version")

    def __init__(self, name: str, version: str, payload: Any, updated: float) -> None:
        self.name = name
        self.version = version
        self.payload = payload
        self.updated = updated
        self.failure: Failure | None = None

    def __repr__(self) -> str:
        return f"<Record of {self.name!r} version {self.version!r}{' with a failure' if self.failure else ''}>"


class Records:
    """Those of one type by name. ``version`` is the last one of a whole response."""

    __slots__ = ("_by_name", "now", "version")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._by_name: dict[str, Record] = {}
        self.now = clock  # seconds since the epoch
        self.version = ""

    def is_known(self, resource: DiscoveredResource) -> bool:
        """Whether this is the version in use, whatever it is called: messages whose maps are in another order are the same."""
        record = self._by_name.get(resource.name)
        return record is not None and same(record.payload, resource.payload)

    def record(self, resource: DiscoveredResource) -> Record:
        """The record of a version that comes now."""
        return Record(resource.name, resource.version, resource.payload, self.now())

    def keep(self, resource: DiscoveredResource) -> None:
        """This version is in use now, or will be when it is warm."""
        self._by_name[resource.name] = self.record(resource)

    def refuse(self, resource: DiscoveredResource, reason: str) -> None:
        """This version is not."""
        record = self._by_name.get(resource.name)
        if record is None:
            record = self._by_name[resource.name] = Record(resource.name, "", None, 0.0)
        record.failure = Failure(resource.payload, resource.version, reason, self.now())

    def forgive(self, name: str) -> None:
        """What is in use has been sent again: nothing is refused any more."""
        record = self._by_name.get(name)
        if record is not None:
            record.failure = None

    def drop(self, name: str) -> None:
        """It is gone."""
        self._by_name.pop(name, None)

    def names(self) -> list[str]:
        """Of all that are in use, or refused."""
        return list(self._by_name)

    def get(self, name: str) -> Record | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._by_name.values()))

    def __repr__(self) -> str:
        return f"<Records of {len(self._by_name)} resources>"


def same(one: Any, other: Any) -> bool:
    """Whether two `google.protobuf.Any` hold the same message."""
    if one is None or one.type_url != other.type_url:
        return False
    if one.value == other.value:
        return True
    if len(one.value) != len(other.value):
        return False
    from sidecar.config.packed import unpack

    try:
        return bool(unpack(one) == unpack(other))
    except Exception:  # what cannot be read is not the same
        return False
