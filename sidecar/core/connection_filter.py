"""Filters of connections that cannot decide at once: what the listener and the network filters say to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from sidecar.core.stream_info import ConnectionInfo

ASKING: Final = -1.0
"""What ``on_new_connection`` returns in place of a delay: the filter decides later, when it is told to ``ask``."""

Decide = Callable[[float | None], None]
"""Takes the decision: None to let the connection pass, else in how many seconds to close it."""


class Question(Protocol):
    """A decision that is awaited."""

    def cancel(self) -> None:
        """The connection is gone: do not decide any more."""
        ...


class AskingFilter(Protocol):
    """A filter that asks somebody else."""

    def ask(self, info: ConnectionInfo, decide: Decide) -> Question:
        """Ask; ``decide`` may be called before this returns, and is called once unless the question is cancelled."""
        ...
