"""File descriptors that another process sends over a Unix socket (SCM_RIGHTS)."""

from __future__ import annotations

import array
import socket


def receive_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int], bool]:
    """Up to ``size`` bytes and ``most`` descriptors, and whether there were more of these, which are lost.

    No process that is started inherits them: `socket.recv_fds` leaves its flags out in several versions of Python. Raises
    OSError.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_LEN(4 * most), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    return data, list(descriptors), bool(flags & socket.MSG_CTRUNC)
