"""One of several workers, as their parent sees it: a process, its channel, and what was asked of it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from base64 import b64decode
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from sidecar.lifecycle.channel import Channel, Message
from sidecar.lifecycle.children import Child
from sidecar.lifecycle.environment import WORKER
from sidecar.lifecycle.handover import give_sockets, pair

_LAST_WORDS = 1.0
"""Seconds for what a worker has said before its end, should another process hold its end of the channel open."""


class State(Enum):
    """Of a worker."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


class Parent(Protocol):
    """What a worker's parent hears of it."""

    epoch: int

    def on_serving(self, worker: WorkerProcess) -> None: ...
    def on_changes(self, worker: WorkerProcess, changes: list[Any]) -> None: ...
    def on_listen(self, worker: WorkerProcess, question: int, listener: bytes) -> None: ...
    def on_unlisten(self, worker: WorkerProcess, keys: list[str]) -> None: ...
    def on_exit(self, worker: WorkerProcess, status: int, before: State) -> None: ...


class Reply:
    """What a worker says to a question: the head of a page, if it is one, and its parts."""

    __slots__ = ("content_type", "heard", "parts", "status")

    def __init__(self) -> None:
        self.heard = 0
        self.status = 0
        self.content_type = ""
        self.parts: list[Message] = []


class WorkerProcess:
    """Started by the constructor; ``sockets`` are those that it is to serve on, ``shared`` the descriptors of what it shares
    with the other workers. Raises OSError.
    """

    def __init__(
        self, parent: Parent, number: int, sockets: Mapping[str, Sequence[socket.socket]], shared: Sequence[int]
    ) -> None:
        self.parent = parent
        self.number = number
        self.state = State.STARTING
        self.connections = 0
        self.told = False
        """Whether it has told, in a drain, what it had counted before."""
        self.silent = False
        """Whether it has left a question unanswered, and not said a word since."""
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._asked: dict[int, tuple[Reply, asyncio.Future[Reply]]] = {}
        self._status: int | None = None
        self._said_all = False
        ours, theirs = pair()
        with theirs:
            self.channel = Channel(self._loop, ours)
            self.channel.on_message = self._on_message
            self.channel.on_end = self._on_end
            descriptors = (theirs.fileno(), *shared)
            text = ":".join(map(str, (number, *descriptors)))
            try:
                self._child = Child(self._loop, {WORKER: text}, descriptors, self._on_exit)
            except OSError:
                self.channel.close()
                raise
        self.pid = self._child.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.state is State.ENDED

    # what it is told

    def order(self, **message: Any) -> None:
        """Tell it something that is not answered."""
        self.channel.send(message)

    async def ask(self, patience: float, **question: Any) -> Reply:
        """Its reply; ``question`` maps what is asked for to nothing or more. Raises a ConnectionError if it ends before that,
        and TimeoutError if it says nothing for ``patience`` seconds: at once, as long as the last question is like that.
        """
        if self.silent:
            raise TimeoutError
        number = next(self._numbers)
        (first, _), *_ = question.items()
        reply = Reply()
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._asked[number] = (reply, future)
        self.channel.send({**question, first: number})
        try:
            while True:
                heard = reply.heard
                await asyncio.wait((future,), timeout=patience)
                if future.done():
                    return future.result()
                if reply.heard == heard:
                    self.silent = True
                    raise TimeoutError
        finally:
            self._asked.pop(number, None)

    def drain(self, limit: float | None) -> None:
        """Let it drain the last of these sockets: nobody takes over from it."""
        self.state = State.DRAINING
        self.order(drain=limit)

    def hand_over(self, keys: frozenset[str], limit: float) -> None:
        """Let it drain: others serve on its sockets with these keys."""
        self.state = State.DRAINING
        self.order(hand_over=list(keys), limit=limit)

    def kill(self) -> None:
        """End it at once."""
        self._child.send(signal.SIGKILL)

    # what it says

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        self.silent = False
        if "take" in message:
            give_sockets(self.channel, self._sockets, self.parent.epoch - 1)
        elif "serving" in message:
            if self.state is State.STARTING:
                self.state = State.SERVING
                self.parent.on_serving(self)
        elif "changes" in message:
            self.parent.on_changes(self, message["changes"])
        elif "connections" in message:
            self.connections = message["connections"]
            self.told = True
        elif "listen" in message:
            self.parent.on_listen(self, message["listen"], b64decode(message["listener"]))
        elif "unlisten" in message:
            self.parent.on_unlisten(self, message["unlisten"])
        else:
            self._on_reply(message)

    def _on_reply(self, message: Message) -> None:
        number = next((message[kind] for kind in ("page", "part", "last") if kind in message), None)
        if number not in self._asked:
            return  # nobody waits for it any more
        reply, future = self._asked[number]
        reply.heard += 1
        if "page" in message:
            reply.status, reply.content_type = message["status"], message["content_type"]
        elif "part" in message:
            reply.parts.append(message)
        elif not future.done():
            future.set_result(reply)

    def _on_exit(self, status: int) -> None:
        self._status = status
        if self._said_all:
            self._gone()
        else:
            self._loop.call_later(_LAST_WORDS, self._gone)  # what it said last is still on its way

    def _on_end(self) -> None:
        self._said_all = True
        if self._status is not None:
            self._gone()

    def _gone(self) -> None:
        if self.state is State.ENDED:
            return
        assert self._status is not None
        self.channel.close()
        before, self.state = self.state, State.ENDED
        self.connections = 0
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the worker has ended"))
        self.parent.on_exit(self, self._status, before)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.number}, process {self.pid}, {self.state.value}>"
