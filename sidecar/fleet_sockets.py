"""The listening sockets of several workers, which their parent owns: taken, kept from one configuration to the next, closed."""

from __future__ import annotations

from collections.abc import Collection

from sidecar.config.bootstrap import Bootstrap
from sidecar.lifecycle.handover import Sockets, close_all
from sidecar.listener.sockets import addresses_of, close, key_of, listen_for_each


def take(bootstrap: Bootstrap, workers: int, known: Sockets, into: Sockets) -> None:
    """Sockets for each address of each listener: those that are ``known``, and new ones. Raises BindError; ``into`` has then
    what was taken before.
    """
    for config in bootstrap.static_resources.listeners:
        if config.bind_to_port:
            into |= listen_for_each(config, workers, known)


def named(bootstrap: Bootstrap, inboundonly: bool) -> tuple[list[str], list[str]]:
    """The names of the listeners, or of those for inbound traffic, and the keys of their sockets."""
    chosen = [
        config
        for config in bootstrap.static_resources.listeners
        if not inboundonly or config.traffic_direction == "INBOUND"
    ]
    keys = [key_of(config, address) for config in chosen for address, _ in addresses_of(config)]
    return sorted({config.name for config in chosen}), keys


def close_new(sockets: Sockets, known: Sockets) -> None:
    """Close those that are not ``known``, and remove the files of such Unix sockets."""
    for key, each in sockets.items():
        for sock in each:
            if sock not in known.get(key, ()):
                close(sock)


def close_left(before: Sockets, after: Sockets) -> None:
    """Close here what is not wanted any more: the workers that have it serve what is queued there."""
    for key, each in before.items():
        close_all({key: [sock for sock in each if sock not in after.get(key, ())]})


def close_own(sockets: Sockets, others: Collection[str]) -> None:
    """Close all, and remove the files of Unix sockets; not of those with the keys ``others``, which another process has, too."""
    for key, each in sockets.items():
        if key in others:
            close_all({key: each})
            continue
        for sock in each:
            close(sock)
