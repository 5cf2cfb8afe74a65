"""File descriptors that processes share: sent over a Unix socket (SCM_RIGHTS), and memory that has one."""

from __future__ import annotations

import array
import os
import socket

_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux has it


def receive_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int], bool]:
    """Up to ``size`` bytes and ``most`` descriptors, and whether there were more of these, which are lost.

    No process that is started inherits them: `socket.recv_fds` leaves its flags out in several versions of Python. Raises
    OSError.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_LEN(4 * most), _CLOSE_ON_EXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    if not _CLOSE_ON_EXEC:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    return data, list(descriptors), bool(flags & socket.MSG_CTRUNC)


def memory_file(name: str, content: bytes = b"") -> int:
    """A descriptor of memory that processes can share, with this content; a file without a name where the system has no such
    memory. Raises OSError.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        import tempfile  # half a megabyte

        with tempfile.TemporaryFile(prefix=name) as file:
            descriptor = os.dup(file.fileno())
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])
    return descriptor
