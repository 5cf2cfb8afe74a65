"""What was discovered, as /config_dump shows it: `Dynamic*` messages of `envoy.admin.v3`, by version and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from sidecar.admin.field_mask import ALL, Mask
from sidecar.admin.json_text import Object
from sidecar.admin.message_json import any_members
from sidecar.config.packed import unpack


class FailureView(Protocol):
    """A version that was refused; ``at`` is in seconds since the epoch."""

    @property
    def payload(self) -> Any: ...
    @property
    def reason(self) -> str: ...
    @property
    def at(self) -> float: ...


class RecordView(Protocol):
    """A resource as it came: ``payload`` is an Any, or None where no version of it was ever good."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def payload(self) -> Any: ...
    @property
    def updated(self) -> float: ...
    @property
    def failure(self) -> FailureView | None: ...


class ListenerStates(NamedTuple):
    """The versions of one listener."""

    name: str
    active: RecordView | None
    warming: RecordView | None
    draining: RecordView | None
    failure: FailureView | None


class DiscoveredView(Protocol):
    """All that was discovered, by type; versions are those of the last responses."""

    @property
    def cluster_version(self) -> str: ...
    @property
    def listener_version(self) -> str: ...
    @property
    def has_routes(self) -> bool:
        """Whether there is any connection manager, discovered or not."""
        ...

    def active_clusters(self) -> Iterable[RecordView]: ...
    def warming_clusters(self) -> Iterable[RecordView]: ...
    def listener_states(self) -> Iterable[ListenerStates]: ...
    def unready_listeners(self) -> Iterable[tuple[str, Sequence[str]]]:
        """Those that are warming, with what they wait for."""
        ...

    def route_configurations(self) -> Iterable[RecordView]: ...
    def active_secrets(self) -> Iterable[RecordView]: ...
    def warming_secrets(self) -> Iterable[RecordView]: ...
    def extensions(self) -> Iterable[RecordView]: ...


class Resource(NamedTuple):
    """One entry of a repeated field of a dump: its members, as far as a mask wants them."""

    name: str
    members: Callable[[Mask], Iterator[tuple[str, Any]]]


def date_text(seconds: float) -> str:
    """A time since the epoch, as protobuf's JSON writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def content_of(payload: Any, mask: Mask = ALL) -> Any:
    """What is in an Any, secrets left out."""
    message = unpack(payload)
    return any_members(message.DESCRIPTOR.full_name, message, mask)


def dynamic_resource(record: RecordView, member: str, *, named: bool = False) -> Resource:
    """A resource with its version, in the field ``member`` of its message."""

    def members(mask: Mask) -> Iterator[tuple[str, Any]]:
        if named and wants(mask, "name"):
            yield "name", record.name
        if record.version and wants(mask, "version_info"):
            yield "version_info", record.version
        if record.payload is not None and wants(mask, member):
            yield member, content_of(record.payload, mask.get(member, ALL))
        if record.payload is not None and wants(mask, "last_updated"):
            yield "last_updated", date_text(record.updated)
        if record.failure is not None and wants(mask, "error_state"):
            yield "error_state", Object(_failure(record.failure))

    return Resource(record.name, members)


def dynamic_listener(states: ListenerStates) -> Resource:
    """A listener with all its versions."""

    def members(mask: Mask) -> Iterator[tuple[str, Any]]:
        if wants(mask, "name"):
            yield "name", states.name
        for field, record in (
            ("active_state", states.active),
            ("warming_state", states.warming),
            ("draining_state", states.draining),
        ):
            if record is not None and wants(mask, field):
                yield field, Object(dynamic_resource(record, "listener").members(mask.get(field, ALL)))
        if states.failure is not None and wants(mask, "error_state"):
            yield "error_state", Object(_failure(states.failure))

    return Resource(states.name, members)


def _failure(failure: FailureView) -> Iterator[tuple[str, Any]]:
    yield "failed_configuration", content_of(failure.payload)
    yield "last_update_attempt", date_text(failure.at)
    yield "details", failure.reason


def wants(mask: Mask, field: str) -> bool:
    """Whether a mask asks for a field."""
    return not mask or field in mask
