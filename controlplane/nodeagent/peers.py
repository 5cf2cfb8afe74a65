"""Who is at the other end of a workload's socket. Source: unix(7), SO_PEERCRED."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Collection
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from controlplane.nodeagent.metrics import Metrics

log = logging.getLogger("controlplane.nodeagent")

_CREDENTIALS: Final = struct.Struct("3i")
_SAY_AGAIN: Final = 60.0  # seconds until the same user's calls are in the log again
_MOST_SAID: Final = 1000


class Peers:
    """The user ids that may have the identity of ``workload`` (NAMESPACE/ACCOUNT). Others are told so, and counted."""

    def __init__(self, workload: str, uids: Collection[int], metrics: Metrics) -> None:
        self.workload = workload
        self.uids = frozenset(uids)
        self._metrics = metrics
        self._said: dict[int, float] = {}

    def admit(self, stream: Stream[Any, Any]) -> None:
        """Raises GRPCError (PERMISSION_DENIED) for a peer that is not among them. What the kernel says counts: the user id
        with which the connection was made.
        """
        uid, pid = credentials(stream)
        if uid in self.uids:
            return
        self._metrics.refused_peers.labels(self.workload).inc()
        now = time.monotonic()
        if now - self._said.get(uid, -_SAY_AGAIN) >= _SAY_AGAIN:
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said[uid] = now
            log.warning(
                "%s: a process of uid %d (pid %d) asks for this identity and is refused", self.workload, uid, pid
            )
        raise GRPCError(
            Status.PERMISSION_DENIED,
            f"uid {uid} may not have the identity of {self.workload}: whoever runs the node agent can add it to `uid` in "
            "agent.json of the identity's directory",
        )


def credentials(stream: Stream[Any, Any]) -> tuple[int, int]:
    """User id and process id of who made a stream's connection. Raises GRPCError where the kernel does not say."""
    peer = stream.peer
    if peer is None:
        raise GRPCError(Status.PERMISSION_DENIED, "the connection has ended")
    try:
        return peer_of(peer._transport)
    except OSError as error:
        raise GRPCError(Status.PERMISSION_DENIED, f"nobody knows whose connection this is: {error}") from None


def peer_of(transport: Any) -> tuple[int, int]:
    """User id and process id of who made a connection. Raises OSError where the kernel does not say."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        raise OSError("it has ended")
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid & 0xFFFFFFFF, pid
