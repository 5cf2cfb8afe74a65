"""What streams of both kinds have in common: many interests, one stream, one thing at a time.

What arrives is handed over in its order, one response after the other, each when the one before is applied; while that takes
time, nothing more is read from the stream. What is to be said waits in one slot for each type, however often it changes.
Source: "xDS REST and gRPC protocol"; where it leaves a choice, Envoy's ``GrpcMuxImpl`` and ``NewGrpcMuxImpl``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.xds.interest import Interest
from sidecar.xds.last_good import Kept, LastGood
from sidecar.xds.stream import DiscoveryStream

log = logging.getLogger("sidecar.xds")

Job = Callable[[], Awaitable[None]]


class TypeState:
    """One type on one stream: who is interested, what was accepted, by name."""

    __slots__ = ("accepted", "answered", "dropped", "expiries", "interests", "type_url", "wanted", "wildcards")

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.interests: dict[Interest, None] = {}
        self.wanted: dict[str, int] = {}
        """How many ask for a resource, by its name."""
        self.wildcards = 0
        """How many want all that there are."""
        self.accepted: dict[str, Kept] = {}
        self.dropped: set[str] = set()
        """Names that nobody wants any more, which the server has not been told."""
        self.expiries: dict[str, Callback] = {}
        self.answered = False

    def add(self, names: frozenset[str] | None) -> None:
        """Somebody wants these."""
        if names is None:
            self.wildcards += 1
        else:
            for name in names:
                self.wanted[name] = self.wanted.get(name, 0) + 1

    def remove(self, names: frozenset[str] | None) -> bool:
        """Somebody wants these no more; whether there are some that nobody wants by name any more."""
        if names is None:
            self.wildcards -= 1
            self.dropped.update(self.accepted)
            return True
        gone = []
        for name in names:
            self.wanted[name] -= 1
            if not self.wanted[name]:
                del self.wanted[name]
                gone.append(name)
        self.dropped.update(gone)
        return bool(gone)

    def wants(self, name: str) -> bool:
        """Whether somebody wants the resource of this name."""
        return bool(self.wildcards) or name in self.wanted

    @property
    def names(self) -> dict[str, None]:
        """What is asked for by name, in the order of the interests, each sorted."""
        found: dict[str, None] = {}
        for interest in self.interests:
            names = interest.names
            if names:
                found.update(dict.fromkeys(sorted(names) if len(names) > 1 else names))
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.type_url.rpartition('.')[2]}, {len(self.interests)} interests>"


StateType = TypeVar("StateType", bound=TypeState)


class Multiplexer(Generic[StateType]):
    """The interests that share a stream. ``make_stream`` is called once, with this as the one who speaks over it."""

    def __init__(
        self,
        worker: Worker,
        make_stream: Callable[[Multiplexer[Any]], DiscoveryStream],
        node: Any,
        last_good: LastGood,
        *,
        node_once: bool,
    ) -> None:
        self.worker = worker
        self.node = node
        self.node_once = node_once
        self.last_good = last_good
        self.types: dict[str, StateType] = {}
        self.pace = Pace(worker.clock)
        self.stream = make_stream(self)
        self.on_empty: Callable[[], object] | None = None
        """Called when nobody is interested any more, by those whose stream is for one."""
        self._paused: dict[str, int] = {}
        self._said_node = False
        self._waiting: dict[str, None] = {}  # types of which there is something to say
        self._jobs: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None

    # what the two kinds of streams differ in

    def make_state(self, type_url: str) -> StateType:
        raise NotImplementedError

    def make_request(self, state: StateType) -> Any:
        """The next request for a type, without the node; None when there is nothing to say."""
        raise NotImplementedError

    def on_new_stream(self, state: StateType) -> None:
        """The server knows nothing any more."""
        raise NotImplementedError

    async def apply(self, state: StateType, response: Any, current: Callable[[], bool]) -> None:
        """Hand over a response, and prepare what is answered; ``current`` tells whether the stream is still that one."""
        raise NotImplementedError

    def on_restored(self, state: StateType) -> None:
        """What was kept from an earlier run is in use."""

    # interests

    @property
    def is_busy(self) -> bool:
        """Whether something that has arrived is not applied to its end, or requests are held."""
        return self._task is not None or bool(self._paused)

    def subscribe(self, interest: Interest) -> Interest:
        """Take on an interest."""
        type_url = interest.type_url
        state = self.types.get(type_url)
        if state is None:
            state = self.types[type_url] = self.make_state(type_url)
        interest.source = self
        interest.stats.update_attempt += 1
        state.interests[interest] = None
        state.add(interest.names)
        if self.stream.started:
            self.want(type_url)
        else:
            self.stream.start()
        self._hand_over_known(state, interest, interest.names)
        if self.stream.failed and not state.answered:
            self._do(partial(self._restore, state, interest, False))
        return interest

    def changed(self, interest: Interest, before: frozenset[str] | None) -> None:
        interest.stats.update_attempt += 1
        state = self.types[interest.type_url]
        state.add(interest.names)
        state.remove(before)
        self.want(interest.type_url)
        if interest.names is not None:
            self._hand_over_known(state, interest, interest.names - (before or frozenset()))

    def closed(self, interest: Interest) -> None:
        """An interest has ended."""
        state = self.types[interest.type_url]
        del state.interests[interest]
        if state.remove(interest.names):
            self.want(interest.type_url)
        if self.on_empty is not None and not state.interests:
            self.on_empty()

    def waited(self, interest: Interest) -> None:
        """Nobody has answered in time: go on with what was good in an earlier run, or without."""
        if not any(state.answered for state in self.types.values()):
            self.stream.failed = True  # who says nothing at all is as good as away: nobody else waits as long
        self._do(partial(self._restore, self.types[interest.type_url], interest, True))

    # requests

    def want(self, type_url: str) -> None:
        """There is something to say of this type."""
        self._waiting[type_url] = None
        self.say()

    def say(self) -> None:
        """Say what there is to say, as far as the stream takes it."""
        stream, waiting = self.stream, self._waiting
        for type_url in list(waiting):
            state = self.types[type_url]
            if self._paused.get(type_url) or not stream.is_open:
                continue
            while (request := self.make_request(state)) is not None:
                if not stream.take():
                    stream.stats.pending_requests = len(waiting)
                    return
                self.on_sent(state)
                self._forget_dropped(state)
                if not (self.node_once and self._said_node):
                    request.node.CopyFrom(self.node)
                    self._said_node = True
                stream.send(request)
                if not stream.is_open:
                    return
            waiting.pop(type_url, None)
        stream.stats.pending_requests = 0

    def on_sent(self, state: StateType) -> None:
        """What ``make_request`` made last is on its way."""
        raise NotImplementedError

    def pause(self, type_url: str) -> None:
        """Say nothing of a type."""
        self._paused[type_url] = self._paused.get(type_url, 0) + 1

    def resume(self, type_url: str) -> None:
        """Undo one ``pause``."""
        self._paused[type_url] -= 1
        if not self._paused[type_url]:
            del self._paused[type_url]
            if type_url in self._waiting:
                self.say()

    # the stream's side

    def on_open(self) -> None:
        self._said_node = False
        self._waiting.clear()
        for state in self.types.values():
            self.on_new_stream(state)
            if state.interests:
                self._waiting[state.type_url] = None
        self.say()

    def on_ready(self) -> None:
        self.say()

    def on_closed(self) -> None:
        for state in self.types.values():
            for interest in list(state.interests):
                interest.failed()
                if not state.answered and not interest.answered:
                    self._do(partial(self._restore, state, interest, False))

    def on_response(self, response: Any) -> None:
        if response.HasField("control_plane"):
            self.stream.stats.identifier = response.control_plane.identifier
        self.stream.pause()
        self._do(partial(self._take, response, self.stream.generation))

    # one thing at a time

    def _do(self, job: Job) -> None:
        self._jobs.append(job)
        if self._task is None:
            task = self._task = self.worker.loop.create_task(self._run())
            tasks: set[Any] = self.worker.tasks
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _run(self) -> None:
        try:
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    await job()
                except Exception:
                    log.exception("%r: what arrived could not be dealt with", self)
        finally:
            self._task = None
        self.stream.resume()
        self.worker.cork.settle()

    async def _take(self, response: Any, generation: int) -> None:
        state = self.types.get(response.type_url)
        if state is None:
            log.warning("ignoring a response of type %r, for which nobody has asked", response.type_url)
            return
        state.answered = True
        self.pause(state.type_url)

        def current() -> bool:
            return self.stream.generation == generation and self.stream.is_open

        try:
            await self.apply(state, response, current)
        finally:
            self.resume(state.type_url)

    async def hand_over(
        self,
        state: StateType,
        resources: Sequence[DiscoveredResource],
        removed: Sequence[str],
        version: str,
        refused: Sequence[Rejection],
        *,
        whole: bool,
    ) -> tuple[list[Rejection], set[str]]:
        """Tell everybody of what concerns them. ``whole`` is for those who want everything; ``refused`` was of no use.

        What the server is to be told, and the names of what was handed over and not applied.
        """
        by_name = {resource.name: resource for resource in resources}
        gone = dict.fromkeys(removed)
        rejections, bad = list(refused), set()
        for interest in list(state.interests):
            if interest.is_closed:
                continue
            names = interest.names
            own: list[Rejection] = []
            mine: Sequence[DiscoveredResource] = resources
            if names is None:
                own = await interest.deliver(resources, removed, version, whole=whole, refused=refused)
            else:
                # most ask for one name, and there are many of them
                few = sorted(names) if len(names) < len(by_name) + len(gone) else {**dict.fromkeys(by_name), **gone}
                mine = [by_name[name] for name in few if name in by_name and name in names]
                mine_gone = [name for name in few if name in gone and name in names]
                concerned = [rejection for rejection in refused if rejection.name in names]
                if mine or mine_gone:
                    own = await interest.deliver(mine, mine_gone, version, whole=False, refused=concerned)
                elif concerned or (refused and not refused[0].name and not interest.answered):
                    interest.rejected()
            for rejection in own:
                rejections.append(rejection)
                bad.update([rejection.name] if rejection.name else [resource.name for resource in mine])
            await self.pace.breathe()
        return rejections, bad

    async def keep(
        self, state: StateType, resources: Sequence[DiscoveredResource], gone: Iterable[str], bad: Collection[str]
    ) -> None:
        """Remember what was accepted: ``resources`` but for those that are ``bad``; ``gone`` are no more."""
        for name in gone:
            state.accepted.pop(name, None)
            self._unexpire(state, name)
        for resource in resources:
            await self.pace.breathe()
            if resource.name not in bad and state.wants(resource.name):
                self._unexpire(state, resource.name)
                state.accepted[resource.name] = Kept(
                    resource.version, resource.payload.type_url, resource.payload.value
                )
        self.last_good.save(state.type_url, state.accepted, None if state.wildcards else state.wanted)

    def expire_in(self, state: StateType, name: str, seconds: float) -> None:
        """The resource lives so long unless the server says so again; 0 for ever. Source: "xDS TTL"."""
        self._unexpire(state, name)
        if seconds > 0:

            def expired() -> None:
                state.expiries.pop(name, None)
                log.warning("%s %s: its time to live is over", state.type_url, name)
                self._do(partial(self._expire, state, name))

            state.expiries[name] = self.worker.wheel.call_in(seconds, expired)

    def _unexpire(self, state: StateType, name: str) -> None:
        timer = state.expiries.pop(name, None)
        if timer is not None:
            self.worker.wheel.cancel(timer)

    async def _expire(self, state: StateType, name: str) -> None:
        if name in state.expiries or name not in state.accepted:
            return
        await self.hand_over(state, [], [name], "", (), whole=False)
        await self.keep(state, [], [name], ())

    # what is known already

    def _hand_over_known(self, state: StateType, interest: Interest, names: Iterable[str] | None) -> None:
        """A server does not repeat what it has told somebody else on the same stream."""
        known = [name for name in (state.accepted if names is None else names) if name in state.accepted]
        if known:
            self._do(partial(self._repeat, state, interest, known))

    async def _repeat(self, state: StateType, interest: Interest, names: list[str]) -> None:
        known = [state.accepted[name].resource(name) for name in names if name in state.accepted]
        if known and not interest.is_closed:
            await interest.tell(known, [], known[0].version, whole=interest.names is None)

    async def _restore(self, state: StateType, interest: Interest, over: bool) -> None:
        """Use what was good in an earlier run. ``over``: there is no time left to wait for the server."""
        taken = {} if state.answered else await interest.restore(self.last_good)
        if taken:
            state.accepted.update(taken)
            self.on_restored(state)
        elif over and not (interest.answered or interest.is_closed):
            interest.unavailable()

    def _forget_dropped(self, state: StateType) -> None:
        """The server knows now what nobody wants, and would say it again to who does later."""
        for name in state.dropped:
            if not state.wants(name):
                state.accepted.pop(name, None)
                self._unexpire(state, name)
        state.dropped.clear()

    def close(self) -> None:
        """End everything."""
        self.stream.close()
        self._jobs.clear()
        if self._task is not None:
            self._task.cancel()
        for state in self.types.values():
            for timer in state.expiries.values():
                self.worker.wheel.cancel(timer)
            state.expiries.clear()
            for interest in list(state.interests):
                interest.is_closed = True
                interest.settle()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.types)} types over {self.stream!r}>"
