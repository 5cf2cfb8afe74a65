"""How many files and connections this process may have."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("controlplane")


def raise_descriptor_limit() -> None:
    """Allow this process as many as it may allow itself: the soft limit is for programs that use select()."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # some systems name a hard limit that they do not grant
        log.debug("the limit on open files stays as it is: %s", error)
