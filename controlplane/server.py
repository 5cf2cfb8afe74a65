"""The life of a control plane: start in the order in which a configuration passes through it, stop in the other."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from typing import Final

from controlplane.assembly import ControlPlane
from controlplane.settings import Settings

log = logging.getLogger("controlplane.server")

_COLLECT: Final = (50_000, 20, 100)
"""What a control plane has it has for long: a look through 10,000 resources holds the loop for 0.2 s, and by Python's own
thresholds there are many while they come.
"""


async def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises OSError if an address or the store cannot be had."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    gc.set_threshold(*_COLLECT)
    control_plane = ControlPlane(settings)
    try:
        await control_plane.start()
        gc.freeze()
        log.info("%s", control_plane.greeting)
        failed = asyncio.create_task(control_plane.failed())
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait((failed, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if failed.done():
            log.error("stopping: %s", failed.result())
            return 1
        failed.cancel()
        return 0
    finally:
        await control_plane.stop()
