"""Which processes can take over from each other."""

HOT_RESTART_VERSION = 1
"""Of the messages of a hand-over; processes of different ones do not understand each other, and say so."""

RESTART_TIMEOUT = 120.0
"""Seconds that the next process of a hot restart, or a worker, has until it serves, by default."""
