"""Which process, if any, a new one takes over from: the options ``--base-id``, ``--restart-epoch`` and their like."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.lifecycle.environment import inherited_base_id, inherited_channel
from sidecar.lifecycle.handover import HandoverError, Successor


def find_predecessor(options: Any) -> tuple[Any, Successor | None]:
    """The base id that this process is to have, or None, and the channel to the process that it takes over from, or None.

    ``options`` are those of the command line. Raises HandoverError, whose text names the option at fault.
    """
    loop = asyncio.get_running_loop()
    inherited = inherited_channel()
    base_id = _base_id(options)
    if inherited is not None:  # the process that runs has started this one
        return base_id, Successor(loop, inherited)
    if base_id is None:
        if options.restart_epoch:
            raise HandoverError(
                f"--restart-epoch {options.restart_epoch} needs the --base-id of the process that it takes over from"
            )
        return None, None
    running = base_id.connect()
    if running is None:
        if options.restart_epoch and not options.skip_hot_restart_on_no_parent:
            raise HandoverError(
                f"--restart-epoch {options.restart_epoch}: no process has --base-id {base_id.number};"
                " pass --skip-hot-restart-on-no-parent to start anyway"
            )
        return base_id, None
    if not options.restart_epoch:
        running.close()
        raise HandoverError(
            f"--base-id {base_id.number}: another process has it; take over from it with --restart-epoch, or take another"
        )
    return base_id, Successor(loop, running, options.restart_epoch)


def _base_id(options: Any) -> Any:
    if options.disable_hot_restart:
        return None
    if options.use_dynamic_base_id:
        if options.restart_epoch:
            raise HandoverError("--use-dynamic-base-id: not with --restart-epoch, which needs a base id that is known")
    elif options.base_id is None:
        return None
    from sidecar.lifecycle.base_id import BaseId

    if options.use_dynamic_base_id:
        chosen = inherited_base_id()
        base_id = BaseId.unused() if chosen is None else BaseId(chosen)
    else:
        base_id = BaseId(options.base_id)
    if options.base_id_path:
        try:
            with open(options.base_id_path, "w") as file:
                file.write(str(base_id.number))
        except OSError as error:
            raise HandoverError(f"--base-id-path {options.base_id_path}: {error.strerror}") from error
    return base_id
