"""Listening sockets: made, given their options, bound and taken down again."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from sidecar.config.address import Address, Pipe, SocketAddress
from sidecar.config.core_types import SocketOption
from sidecar.config.listener import Listener

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_IPV6_TRANSPARENT = 75
_QUEUE_LENGTH = struct.Struct("24xI")  # `tcpi_unacked` in the TCP_INFO of a listening socket
_MAX_BACKLOG = 0x7FFFFFFF  # the kernel lowers it to net.core.somaxconn


Inherited = dict[str, list[socket.socket]]
"""Listening sockets that another process had, by ``key_of`` their address; what is used is taken out."""


class BindError(OSError):
    """A listener's address cannot be listened on. ``strerror`` names the listener, the address and the reason."""

    def __init__(self, listener: str, address: Address, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        super().__init__(cause.errno, f"listener {listener!r} cannot listen on {address}: {reason}")


def addresses_of(config: Listener) -> list[tuple[Address, tuple[SocketOption, ...]]]:
    """Every address of a listener with the socket options that hold for it."""
    own = config.socket_options
    more = [(each.address, own if each.socket_options is None else each.socket_options)
            for each in config.additional_addresses]  # fmt: skip
    return [(config.address, own), *more]


def key_of(config: Listener, address: Address) -> str:
    """What finds a listener's socket again in the next process: the address, with the listener's name if any port will do."""
    port_varies = isinstance(address, SocketAddress) and not address.port_value
    return f"{config.name} {address}" if port_varies else str(address)


def listen(
    config: Listener, inherited: Inherited | None = None
) -> tuple[list[tuple[str, socket.socket]], frozenset[str]]:
    """Listening, non-blocking sockets for each address of the listener, each with its ``key_of``, and the keys of those that
    are ``inherited``. Raises BindError; then none stays open.
    """
    sockets: list[tuple[str, socket.socket]] = []
    shared: set[str] = set()
    for address, options in addresses_of(config):
        key = key_of(config, address)
        found = inherited.pop(key, None) if inherited else None
        if found:
            shared.add(key)
            sockets += [(key, sock) for sock in found]
            continue
        try:
            sockets.append((key, _listen_on(config, address, options)))
        except OSError as error:
            for key, sock in sockets:
                if key in shared:
                    sock.close()
                else:
                    close(sock)
            raise BindError(config.name, address, error) from error
    return sockets, frozenset(shared)


def listen_for_each(config: Listener, count: int, inherited: Inherited) -> dict[str, list[socket.socket]]:
    """At least ``count`` sockets for each address of the listener, by ``key_of``: what is ``inherited``, and new ones.

    With ``enable_reuse_port`` off, and for a Unix socket, there is one socket that all share. Raises BindError.
    """
    found: dict[str, list[socket.socket]] = {}
    made: list[socket.socket] = []
    for address, options in addresses_of(config):
        key = key_of(config, address)
        here = found[key] = inherited.pop(key, [])
        alone = isinstance(address, Pipe) or not config.enable_reuse_port
        if not alone:
            for sock in here:  # it may have been made without
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            while len(here) < (1 if alone else count):
                bound = address
                if here and isinstance(address, SocketAddress):  # the port that the first one was given
                    bound = replace(address, port_value=here[0].getsockname()[1])
                made.append(_listen_on(config, bound, options))
                here.append(made[-1])
        except OSError as error:
            for sock in made:
                close(sock)
            raise BindError(config.name, address, error) from error
    return found


def close(sock: socket.socket) -> None:
    """Close a listening socket, and remove the file of a Unix socket."""
    if sock.family == socket.AF_UNIX and sock.fileno() >= 0:
        path = sock.getsockname()
        if isinstance(path, str) and path:
            with suppress(FileNotFoundError):  # somebody may have tidied up already
                os.unlink(path)
    sock.close()


def queue_length(sock: socket.socket) -> int:
    """How many connections wait to be accepted; 0 where the system does not say (no TCP, no Linux)."""
    if sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        return int(_QUEUE_LENGTH.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE_LENGTH.size))[0])
    except OSError:
        return 0


def _listen_on(config: Listener, address: Address, options: Iterable[SocketOption]) -> socket.socket:
    sock = _socket_for(address)
    try:
        _set_options(sock, options, "STATE_PREBIND")
        if isinstance(address, Pipe):
            _bind_pipe(sock, address)
        else:
            _prepare_ip(sock, config, address.ipv4_compat)
            host, _, zone = address.address.partition("%")
            if sock.family == socket.AF_INET6:
                sock.bind((host, address.port_value, 0, _scope(zone)))
            else:
                sock.bind((host, address.port_value))
        _set_options(sock, options, "STATE_BOUND")
        queue = config.tcp_fast_open_queue_length
        if queue is not None and not isinstance(address, Pipe):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, queue)
        sock.listen(_MAX_BACKLOG if config.tcp_backlog_size is None else config.tcp_backlog_size)
        _set_options(sock, options, "STATE_LISTENING")
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _socket_for(address: Address) -> socket.socket:
    if isinstance(address, Pipe):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return socket.socket(socket.AF_INET6 if ":" in address.address else socket.AF_INET, socket.SOCK_STREAM)


def _prepare_ip(sock: socket.socket, config: Listener, ipv4_compat: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if config.enable_reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    v6 = sock.family == socket.AF_INET6
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if ipv4_compat else 1)
    if config.transparent:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    if config.freebind:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)


def _scope(zone: str) -> int:
    if not zone:
        return 0
    return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)


def _bind_pipe(sock: socket.socket, pipe: Pipe) -> None:
    if pipe.path.startswith("@"):
        sock.bind("\x00" + pipe.path[1:])
        return
    _remove_stale(pipe.path)
    sock.bind(pipe.path)
    if pipe.mode:
        os.chmod(pipe.path, pipe.mode)


def _remove_stale(path: str) -> None:
    """Remove the file that a listener which is gone left behind; OSError if somebody listens, or it is no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the file exists, and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _set_options(sock: socket.socket, options: Iterable[SocketOption], state: str) -> None:
    for option in options:
        if option.state == state:
            sock.setsockopt(option.level, option.name, option.value)
