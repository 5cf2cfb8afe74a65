"""A workload's socket, and the gRPC server on it, with bounds.

SOCKETS/NAMESPACE/ACCOUNT/agent.sock. The directories are 0711: whoever knows a workload's name may go to its socket, nobody
else may put something there. Who may connect is narrowed by the file's mode where one user alone may have the identity (0600,
the file is that user's); and it is decided by what the kernel says of each connection, whatever the mode.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from controlplane.nodeagent.peers import peer_of

log = logging.getLogger("controlplane.nodeagent")

NAME: Final = "agent.sock"
MAX_REQUEST: Final = 256 << 10  # bytes of one request
_MOST_CONNECTIONS: Final = 256  # of one user to one workload's socket
_MOST_STRANGERS: Final = 16  # connections of all those who may not have the identity, and are told so
_STRANGERS: Final = -1
_SAY_AGAIN: Final = 60.0  # seconds until the log says the same again
_PATIENCE: Final = 15.0  # seconds for somebody to ask for something
_LONGEST_PATH: Final = 107  # bytes, unix(7)

# A peer that is gone is noticed in half a minute, also by us: grpclib does not look unless it is told to.
_KEEPALIVE: Final = Configuration(
    _keepalive_time=20.0,
    _keepalive_timeout=10.0,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=10.0,
)


def socket_path(sockets: Path, namespace: str, account: str) -> Path:
    """Where a workload's socket is."""
    return sockets / namespace / account / NAME


class WorkloadServer:
    """Serves at ``path`` to those whom the handlers admit; ``uids`` may connect at all."""

    def __init__(self, path: Path, handlers: Collection[Any], uids: Collection[int]) -> None:
        self.path = path
        self.uids = frozenset(uids)
        self._server = _Server(self.uids, handlers, codec=_Bounded(), config=_KEEPALIVE)
        self._inode = 0

    async def start(self) -> None:
        """Listen. Raises OSError with what to do if the socket cannot be made."""
        _make_directories(self.path)
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise OSError(
                f"{self.path}: the path of a socket has at most {_LONGEST_PATH} bytes: use a shorter --sockets"
            )
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise OSError(f"{self.path} is there and is not a socket: remove it")
            os.unlink(self.path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind(os.fspath(self.path))  # nobody can connect before it listens
            self._narrow()
            await self._server.listen_on(listening)
        except BaseException:
            listening.close()
            raise
        self._inode = os.lstat(self.path).st_ino

    def _narrow(self) -> None:
        others = self.uids - {0, os.geteuid()}
        if not others:
            os.chmod(self.path, 0o600)
        elif len(others) == 1 and os.geteuid() == 0:
            os.chown(self.path, next(iter(others)), -1)
            os.chmod(self.path, 0o600)
        else:
            os.chmod(self.path, 0o666)

    async def stop(self) -> None:
        """End all streams, and take the socket away."""
        if self._server._server is None:
            return
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._server.close()
        self._server.close_connections()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):  # Python 3.11's wait_for may lose a cancellation
                await self._server.wait_closed()


def _make_directories(path: Path) -> None:
    """0711, but for what was there before. Raises OSError if somebody else could replace what is in them."""
    for directory in (path.parents[2], path.parents[1], path.parents[0]):
        try:
            directory.mkdir(mode=0o711, parents=True)
            directory.chmod(0o711)
        except FileExistsError:
            found = directory.stat()
            if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
                raise OSError(
                    f"{directory}: others may write there, and put a socket of their own into the place of ours: "
                    "make it yours alone (chmod go-w), or use another --sockets"
                ) from None


class _Bounded(CodecBase):
    """Protobuf messages. What is none ends the call."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Its bytes."""
        return bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The message."""
        try:
            return message_type.FromString(data)
        except Exception as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"not a {message_type.DESCRIPTOR.full_name}") from error


class _Connection(H2Protocol):
    """A connection that has to be for something: one on which nobody asks for anything does not stay. It takes one of the
    ``places`` of its user, and is ended at once if there is none.
    """

    def __init__(self, places: _Places, made: H2Protocol) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._places = places
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        if not self._places.take(self, transport):
            self.handler.close()
            transport.abort()
            return
        super().connection_made(transport)
        _bound_requests(self)
        self._deadline = asyncio.get_running_loop().call_later(_PATIENCE, self._used)

    def connection_lost(self, exc: Any) -> None:
        if self._deadline is None:
            return  # it was never served
        self._deadline.cancel()
        self._places.give_back(self)
        super().connection_lost(exc)

    def _used(self) -> None:
        if not self.processor.streams:
            self.processor.close("nothing was asked")


def _bound_requests(protocol: H2Protocol) -> None:
    """grpclib takes messages of any size: refuse what is too large before it is read."""
    accept = protocol.processor.handler.accept

    def bounded(stream: Any, headers: Any, release: Any) -> None:
        receive = stream.recv_data

        async def recv_data(size: int) -> bytes:
            if size > MAX_REQUEST:
                raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {size} bytes; the limit is {MAX_REQUEST}")
            found: bytes = await receive(size)
            return found

        stream.recv_data = recv_data
        accept(stream, headers, release)

    protocol.processor.handler.accept = bounded  # type: ignore[method-assign, assignment]


class _Places:
    """Who is connected: each of ``uids`` has as many places, and all others together a few."""

    def __init__(self, uids: Collection[int]) -> None:
        self.taken: dict[_Connection, int] = {}
        self._uids = frozenset(uids)
        self._numbers: collections.Counter[int] = collections.Counter()
        self._said = 0.0

    def take(self, connection: _Connection, transport: Any) -> bool:
        """Whether there was one."""
        try:
            uid, _ = peer_of(transport)
        except OSError:
            return False
        place = uid if uid in self._uids else _STRANGERS
        most = _MOST_STRANGERS if place == _STRANGERS else _MOST_CONNECTIONS
        if self._numbers[place] >= most:
            if time.monotonic() >= self._said:
                self._said = time.monotonic() + _SAY_AGAIN
                log.warning("%d connections of uid %d to one workload's socket: no more are taken", most, uid)
            return False
        self._numbers[place] += 1
        self.taken[connection] = place
        return True

    def give_back(self, connection: _Connection) -> None:
        """It is over."""
        self._numbers[self.taken.pop(connection)] -= 1


class _Server(Server):
    """grpclib's, on a socket that is there, with bounds on its connections, which end when it does."""

    def __init__(self, uids: Collection[int], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = _Places(uids)

    async def listen_on(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._protocol_factory, sock=listening, backlog=128)
        self._server_closed_fut = loop.create_future()

    def _protocol_factory(self) -> Any:
        return _Connection(self._places, super()._protocol_factory())

    def close_connections(self) -> None:
        for protocol in list(self._places.taken):
            protocol.processor.close("the node agent stops")
