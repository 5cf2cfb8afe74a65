"""Workloads that register themselves: a WorkloadEntry for as long as a proxy's stream lasts, and a while longer.

A proxy whose node names a WorkloadGroup (`AUTO_REGISTER_GROUP`) gets an entry from the group's template, as in Istio
(https://istio.io/latest/docs/setup/install/virtual-machine/, "automated WorkloadEntry creation"). Who writes an entry is
told in it, and every write compares and swaps: a proxy that has gone on to another control plane is that one's, whatever
this one hears of it later.

When a stream ends the entry says so, and is removed after the grace period. If the whole control plane ends, the entries
of its proxies belong to nobody: they are given a longer time, because proxies take up to half a minute to come back.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from controlplane.model.causes import Invalid
from controlplane.model.conversion import TLS_MODE_LABEL
from controlplane.model.election import Presence
from controlplane.model.parsing import parse
from controlplane.model.proxy import Locality, Proxy, ProxyType
from controlplane.model.registration import (
    CONNECTED,
    CONTROLLER,
    DISCONNECTED,
    GROUP,
    HEALTH_CHECKED,
    HEALTHY,
    entry_of,
    group_of,
    served_ports,
)
from controlplane.model.resource import ResourceKey
from controlplane.model.service import MUTUAL_TLS
from controlplane.model.status import conditions_of
from controlplane.model.store import Compacted, Conflict, Store, Stored, Unavailable

_log = logging.getLogger(__name__)

_RETRY: Final = 1.0
"""Seconds until what could not be written is tried again."""

_PAGE: Final = 200

Document = dict[str, Any]


_Who = tuple[str, str, str]


def _who(proxy: Proxy) -> _Who:
    """What tells workloads apart: a node's id alone is free text, its namespace and account are what its credentials say."""
    return (proxy.namespace, proxy.service_account, proxy.id)


class RegistrationFailed(Exception):
    """A workload cannot be registered as it wants; the message says what to do."""


@dataclass(slots=True, eq=False)
class _Workload:
    """What is to be written of a proxy. ``left`` is when its last stream ended; times are in seconds since the epoch."""

    key: ResourceKey
    proxy: Proxy
    streams: int = 0
    since: float = 0.0
    left: float | None = None
    health: Mapping[str, Any] | None = None
    behind: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Registration:
    """Registers the workloads whose proxies are connected to this control plane.

    ``presence`` says who this one and the others are. ``grace`` is the time in seconds between the end of a workload's last
    stream and its removal; ``orphan_grace`` that for workloads whose control plane is gone. ``leading`` says whether this
    one removes those.
    """

    def __init__(
        self,
        store: Store,
        presence: Presence,
        *,
        grace: float = 10.0,
        orphan_grace: float = 60.0,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._presence = presence
        self._grace = grace
        self._orphan_grace = max(grace, orphan_grace)
        self._leading = leading
        self._clock = clock
        self._workloads: dict[_Who, _Workload] = {}
        self._removals: dict[_Who, asyncio.Task[None]] = {}
        self._orphans: dict[ResourceKey, tuple[int, float]] = {}
        self._stopped = False

    # What the xDS server tells.

    async def connected(self, proxy: Proxy) -> bool:
        """A proxy's stream has begun: its entry is there when this returns, unless the store is away, and then later.

        Whether the proxy registers itself: only then does the end of this stream mean anything. Raises RegistrationFailed: the
        stream should end with that message.
        """
        if not group_of(proxy) or self._stopped:
            return False
        if not proxy.addresses:
            raise RegistrationFailed(
                f"{proxy.id} has no address by which others could reach it: set it in the node's id"
            )
        who = _who(proxy)
        workload = self._workloads.setdefault(who, _Workload(entry_of(proxy), proxy))
        before = (workload.proxy, workload.since, workload.left)
        workload.proxy = proxy
        workload.streams += 1
        workload.since, workload.left = self._clock(), None
        try:
            await self._write(workload)
        except RegistrationFailed:
            workload.streams -= 1
            workload.proxy, workload.since, workload.left = before
            if not workload.streams and who not in self._removals:
                self._workloads.pop(who, None)
            raise
        except BaseException:  # the stream has ended before it was served: its entry may be written all the same
            self._one_less(workload)
            raise
        removal = self._removals.pop(who, None)
        if removal is not None:
            removal.cancel()
        return True

    async def disconnected(self, proxy: Proxy) -> None:
        """A stream for which `connected` has returned True is over."""
        workload = self._workloads.get(_who(proxy))
        if workload is None or self._stopped:
            return
        if self._one_less(workload):
            await self._write(workload)

    def _one_less(self, workload: _Workload) -> bool:
        """A stream of a workload is over; whether it was the last one, so that it is removed after the grace period."""
        workload.streams -= 1
        if workload.streams > 0:
            return False
        who = _who(workload.proxy)
        workload.left = self._clock()
        removal = self._removals.get(who)
        if removal is not None:
            removal.cancel()
        self._removals[who] = asyncio.create_task(self._remove_later(workload))
        return True

    async def report_health(self, proxy: Proxy, healthy: bool, message: str = "") -> bool:
        """How a workload is, as its own sidecar has found: the condition `Healthy` in its entry's status. False
        if it is not registered here (yet): say it again.
        """
        workload = self._workloads.get(_who(proxy))
        if workload is None or self._stopped:
            return False
        now = _moment(self._clock())
        condition = {"type": HEALTHY, "status": "True" if healthy else "False", "lastProbeTime": now}
        if not healthy:
            condition["message"] = message
        workload.health = condition
        try:
            await self._write(workload)
        except RegistrationFailed as error:
            _log.warning("%s", error)
            return False
        return True

    async def run(self) -> None:
        """Write what could not be written, and remove workloads whose control plane is gone. Until cancelled."""
        every = max(_RETRY / 10, min(_RETRY, self._grace / 2))
        sweep = 0.0
        while True:
            for workload in [each for each in self._workloads.values() if each.behind]:
                try:
                    await self._write(workload)
                except RegistrationFailed as error:
                    _log.warning("%s", error)
                    workload.behind = False
            if self._clock() >= sweep:
                sweep = self._clock() + self._orphan_grace / 4
                try:
                    await self._sweep()
                except (Unavailable, Compacted) as error:
                    _log.warning("workloads of control planes that are gone are not removed: %s", error)
            await asyncio.sleep(every)

    def stop(self) -> None:
        """From now on streams end because this control plane does: that says nothing about the workloads."""
        self._stopped = True
        for removal in self._removals.values():
            removal.cancel()
        self._removals.clear()

    # Writing.

    async def _write(self, workload: _Workload) -> None:
        """Bring a workload's entry to what is known now. If the store is away, `run` does it later."""
        async with workload.lock:
            health = workload.health
            try:
                await self._change(workload.key, lambda now: self._wanted(workload, now), workload.proxy)
                workload.behind = False
                if workload.health is health:
                    workload.health = None  # it is written; what another one writes later counts
            except Unavailable as error:
                if not workload.behind:
                    _log.warning("%s is registered later: %s", workload.key, error)
                workload.behind = True

    async def _change(
        self, key: ResourceKey, want: Callable[[Document | None], Awaitable[Document | None]], proxy: Proxy
    ) -> None:
        while True:
            stored = await self._store.get(key)
            now = orjson.loads(stored.document) if stored else None
            wanted = await want(now)
            if wanted is None or wanted == now:
                return
            try:
                await self._store.put(
                    key, orjson.dumps(wanted), expected=stored.revision if stored else 0, who=f"workload {proxy.id}"
                )
            except Conflict:
                continue
            if now is None:
                _log.info("registered %s for %s", key, proxy.id)
            return

    async def _wanted(self, workload: _Workload, now: Document | None) -> Document | None:
        """What the entry should say; None if it is not this one's to say it."""
        if workload.left is not None:
            if now is None or not self._is_ours(now):
                return None
            wanted = _with_annotations(now, {DISCONNECTED: _moment(workload.left), CONNECTED: None})
        else:
            wanted = await self._entry(workload, now)
        return wanted if workload.health is None else _with_condition(wanted, workload.health)

    async def _entry(self, workload: _Workload, now: Document | None) -> Document:
        proxy, key = workload.proxy, workload.key
        group_key = ResourceKey("WorkloadGroup", proxy.namespace, group_of(proxy))
        if now is not None and GROUP not in _annotations(now):
            raise RegistrationFailed(
                f"{key} was made by somebody else, so that {proxy.id} cannot register itself by that name: remove either"
            )
        if (
            now is not None
            and not self._is_ours(now)
            and _annotations(now).get(CONNECTED, "") > _moment(workload.since)
        ):
            return now  # it has gone on to another control plane since
        stored = await self._store.get(group_key)
        if stored is None:
            raise RegistrationFailed(f"{proxy.id} cannot register itself: there is no {group_key}; make it first")
        made = _from_group(key, orjson.loads(stored.document), proxy)
        account = made["spec"].get("serviceAccount")
        if account and proxy.service_account and account != proxy.service_account:
            raise RegistrationFailed(
                f"{proxy.id} is of service account {proxy.service_account}, but {group_key} is for {account}"
            )
        metadata = made["metadata"]
        metadata["annotations"] |= {CONTROLLER: self._presence.identity, CONNECTED: _moment(workload.since)}
        if now is None:
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _second(self._clock()), "generation": 1}
        else:
            had = now["metadata"]
            metadata |= {name: had[name] for name in ("uid", "creationTimestamp", "generation") if name in had}
            if made["spec"] != now.get("spec"):
                metadata["generation"] = int(had.get("generation", 0)) + 1
            if "status" in now:
                made["status"] = now["status"]
        try:
            parse(made)
        except Invalid as invalid:
            raise RegistrationFailed(f"{proxy.id} cannot register itself by {group_key}: {invalid}") from None
        return made

    def _is_ours(self, entry: Document) -> bool:
        return bool(_annotations(entry).get(CONTROLLER) == self._presence.identity)

    # Removing.

    async def _remove_later(self, workload: _Workload) -> None:
        await asyncio.sleep(self._grace)
        identity = _who(workload.proxy)
        while True:
            try:
                stored = await self._store.get(workload.key)
                if stored is not None:
                    entry = orjson.loads(stored.document)
                    if self._is_ours(entry):
                        await self._remove(stored, f"its stream ended {self._grace:g} s ago")
                break
            except Unavailable as error:
                _log.info("%s is removed later: %s", workload.key, error)
                await asyncio.sleep(_RETRY)
        if self._removals.get(identity) is asyncio.current_task():
            del self._removals[identity]
            self._workloads.pop(identity, None)

    async def _remove(self, stored: Stored, why: str) -> None:
        try:
            await self._store.delete(stored.key, expected=stored.revision, who="registration")
            _log.info("removed %s: %s", stored.key, why)
        except Conflict:
            _log.info("%s was changed while it should be removed: it stays", stored.key)

    async def _sweep(self) -> None:
        """Remove entries whose control plane is gone, when they have been so for long enough."""
        if not self._leading():
            self._orphans.clear()
            return
        alive = set(await self._presence.alive())
        now = self._clock()
        orphans: dict[ResourceKey, tuple[int, float]] = {}
        async for stored in self._entries():
            annotations = _annotations(orjson.loads(stored.document))
            if GROUP not in annotations or annotations.get(CONTROLLER) in alive:
                continue
            revision, seen = self._orphans.get(stored.key, (stored.revision, now))
            if revision != stored.revision:
                seen = now
            if now - seen >= self._orphan_grace:
                await self._remove(stored, f"its control plane {annotations.get(CONTROLLER)} is gone")
            else:
                orphans[stored.key] = (stored.revision, seen)
        self._orphans = orphans

    async def _entries(self) -> AsyncIterator[Stored]:
        """All WorkloadEntries, few at a time, so that nobody waits for it."""
        after: ResourceKey | None = None
        revision: int | None = None
        more = True
        while more:
            page = await self._store.list("WorkloadEntry", limit=_PAGE, after=after, revision=revision)
            revision, more = page.revision, page.more
            for stored in page.items:
                after = stored.key
                yield stored


def _from_group(key: ResourceKey, group: Document, proxy: Proxy) -> Document:
    """An entry from a group's template and from what the proxy says of itself, which takes precedence."""
    spec, metadata = group.get("spec") or {}, (group.get("spec") or {}).get("metadata") or {}
    template = spec.get("template") or {}
    labels = {**(template.get("labels") or {}), **(metadata.get("labels") or {}), **proxy.labels}
    if proxy.type is ProxyType.SIDECAR:
        # A sidecar takes mutual TLS if it has an agent to give it an identity, whatever labels say. Of a gRPC server without a
        # proxy nobody can know it but who has written it: there the label is theirs.
        labels.pop(TLS_MODE_LABEL, None)
        if proxy.has_identity:
            labels[TLS_MODE_LABEL] = MUTUAL_TLS
    annotations = {GROUP: group["metadata"]["name"], **(metadata.get("annotations") or {})}
    if spec.get("probe"):
        annotations[HEALTH_CHECKED] = "true"
    entry: Document = {**template, "address": proxy.addresses[0], "labels": labels}
    if ports := served_ports(template.get("ports") or {}, proxy):
        entry["ports"] = ports
    if proxy.network:
        entry["network"] = proxy.network
    if place := _place(proxy.locality):
        entry["locality"] = place
    if proxy.service_account:
        entry.setdefault("serviceAccount", proxy.service_account)
    owner = {
        "apiVersion": group["apiVersion"],
        "kind": "WorkloadGroup",
        "name": group["metadata"]["name"],
        "uid": group["metadata"].get("uid", ""),
        "controller": True,
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": entry,
    }


def _place(locality: Locality) -> str:
    parts = (locality.region, locality.zone, locality.sub_zone)
    return "/".join(parts).rstrip("/")


def _annotations(entry: Mapping[str, Any]) -> Mapping[str, str]:
    return (entry.get("metadata") or {}).get("annotations") or {}


def _with_annotations(entry: Document, changed: Mapping[str, str | None]) -> Document:
    annotations = {**_annotations(entry), **changed}
    kept = {name: value for name, value in annotations.items() if value is not None}
    return {**entry, "metadata": {**entry["metadata"], "annotations": kept}}


def _with_condition(entry: Document, condition: Mapping[str, Any]) -> Document:
    """The entry with a condition in its status; when it last changed stays if it says the same as before."""
    status = entry.get("status") or {}
    conditions = conditions_of(status)
    changed = {**condition, "lastTransitionTime": condition["lastProbeTime"]}
    for index, each in enumerate(conditions):
        if each.get("type") == condition["type"]:
            if each.get("status") == condition["status"] and "lastTransitionTime" in each:
                changed["lastTransitionTime"] = each["lastTransitionTime"]
            conditions[index] = changed
            break
    else:
        conditions.append(changed)
    return {**entry, "status": {**status, "conditions": conditions}}


def _moment(seconds: float) -> str:
    return (
        datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def _second(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
