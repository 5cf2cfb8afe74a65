"""What a process tells the ones that it starts with its own command line, in their environment."""

from __future__ import annotations

import os
import socket

HANDOVER = "MIZZEN_HANDOVER"
"""The descriptor of the channel to the process that the new one takes over from."""

BASE_ID = "MIZZEN_BASE_ID"
"""The base id of the process that the new one takes over from, where ``--use-dynamic-base-id`` chose it."""

WORKER = "MIZZEN_WORKER"
"""A worker's number, and the descriptors of its channel to its parent, of its configuration, of its board, its inbox and the
outboxes to all.
"""

STOOD_FOR = "MIZZEN_STOOD_FOR"
"""The id of the process that was started first: it stays, and waits for its descendants."""


def inherited_channel() -> socket.socket | None:
    """The channel to the process that this one takes over from, if that has started it."""
    descriptor = os.environ.pop(HANDOVER, None)
    return None if descriptor is None else socket.socket(fileno=int(descriptor))


def inherited_base_id() -> int | None:
    """The base id that was chosen for the process that this one takes over from."""
    number = os.environ.pop(BASE_ID, None)
    return None if number is None else int(number)


def worker_of_environment() -> tuple[int, socket.socket, list[int]] | None:
    """The number of this worker, its channel to its parent, and the other descriptors; None for a process that is no worker."""
    given = os.environ.pop(WORKER, None)
    if given is None:
        return None
    number, channel, *others = map(int, given.split(":"))
    return number, socket.socket(fileno=channel), others
