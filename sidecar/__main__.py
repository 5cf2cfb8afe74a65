"""The command line: ``python -m sidecar --config FILE``, with Envoy's own options."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

from sidecar import __version__
from sidecar.config.problems import ConfigurationError
from sidecar.core.hot_restart import HOT_RESTART_VERSION, RESTART_TIMEOUT

log = logging.getLogger("sidecar.main")

_LEVELS = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
    "warn": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL, "off": logging.CRITICAL + 1,
}  # fmt: skip

# Envoy's options that make no difference here, with the number of their arguments.
_ACCEPTED = {
    "--file-flush-interval-msec": 1, "--file-flush-min-size-kb": 1, "--skip-hot-restart-parent-stats": 0,
    "--component-log-level": 1, "--log-format-escaped": 0, "--enable-fine-grain-logging": 0,
    "--cpuset-threads": 0, "--allow-unknown-fields": 0, "--allow-unknown-static-fields": 0,
    "--reject-unknown-dynamic-fields": 0, "--ignore-unknown-dynamic-fields": 0, "--skip-deprecated-logs": 0,
    "--local-address-ip-version": 1, "--admin-address-path": 1, "--service-zone": 1, "--socket-path": 1,
    "--socket-mode": 1, "--enable-core-dump": 0, "--stats-tag": 1, "--disable-extensions": 1,
}  # fmt: skip


class _HelpFormatter(argparse.HelpFormatter):
    """Knows the width by itself: argparse would load half a megabyte to ask the terminal, with or without --help."""

    def __init__(self, prog: str) -> None:
        columns = os.environ.get("COLUMNS", "")
        super().__init__(prog, width=int(columns) - 2 if columns.isdecimal() else 100)


def parser() -> argparse.ArgumentParser:
    """The options, named as Envoy names them."""
    made = argparse.ArgumentParser(
        "sidecar",
        description="A proxy that runs Envoy's configuration.",
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    made.add_argument("-c", "--config", "--config-path", dest="config", metavar="FILE", help="bootstrap, YAML or JSON")
    made.add_argument("--config-yaml", metavar="YAML", help="YAML that is merged over the bootstrap")
    made.add_argument("--mode", choices=("serve", "validate"), default="serve", help="serve, or only check the file")
    made.add_argument("-l", "--log-level", choices=tuple(_LEVELS), default="info")
    made.add_argument("--log-format", choices=("text", "json"), default="text")
    made.add_argument("--log-path", metavar="FILE", help="write the log there instead of standard error")
    _add_life_cycle(made)
    made.add_argument("--service-node", default="", metavar="ID", help="node.id")
    made.add_argument("--service-cluster", default="", metavar="NAME", help="node.cluster")
    made.add_argument(
        "--xds-state-dir",
        metavar="DIR",
        help="where the last good dynamic resources are kept, for a start while the management server is away; "
        "$XDG_STATE_HOME/mizzen/xds by default, nowhere if it is empty",
    )
    made.add_argument(
        "--concurrency", type=_count, default=1, metavar="N", help="how many worker processes; 1 by default"
    )
    made.add_argument("--seed", type=int, metavar="N", help="make what is left to chance repeatable")
    made.add_argument("--version", action="version", version=f"mizzen sidecar {__version__}")
    for option, arguments in _ACCEPTED.items():
        if arguments:
            made.add_argument(option, help=argparse.SUPPRESS)
        else:
            made.add_argument(option, action="store_true", default=None, help=argparse.SUPPRESS)
    return made


def _add_life_cycle(made: argparse.ArgumentParser) -> None:
    """The options of drains and restarts."""
    add = made.add_argument
    add("--drain-time-s", type=_seconds, default=600.0, metavar="SECONDS", help="how long a drain may take")
    add(
        "--drain-announce-s",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long readiness fails before a drain begins",
    )
    add(
        "--drain-strategy",
        choices=("gradual", "immediate"),
        default="gradual",
        help="ask clients to close at random times within the drain time, or all at once",
    )
    add(
        "--parent-shutdown-time-s",
        type=_seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long the old process of a hot restart may drain",
    )
    add(
        "--restart-timeout-s",
        type=_seconds,
        default=RESTART_TIMEOUT,
        metavar="SECONDS",
        help="how long the next process of a hot restart may take until it serves",
    )
    add("--base-id", type=_count_or_none, metavar="N", help="where the processes of a hot restart find each other")
    add("--base-id-path", metavar="FILE", help="write the base id there")
    add("--use-dynamic-base-id", action="store_true", help="take a base id that nobody has")
    add(
        "--restart-epoch",
        type=_count_or_none,
        default=0,
        metavar="N",
        help="1 and up: take over from the process of the epoch before",
    )
    add("--skip-hot-restart-on-no-parent", action="store_true", help="start anew if there is nobody to take over from")
    add("--disable-hot-restart", action="store_true", help="have no base id")
    add("--hot-restart-version", action="version", version=str(HOT_RESTART_VERSION), help="print it and exit")  # fmt: skip


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise ValueError
    return seconds


def _count_or_none(text: str) -> int:
    count = int(text)
    if not 0 <= count < 1 << 32:
        raise ValueError
    return count


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 1024:
        raise ValueError
    return count


class JsonLog(logging.Formatter):
    """One JSON object for each line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up_logging(level: str, log_format: str, path: str | None) -> None:
    """Send the log to standard error, or to a file, which is opened anew when it was moved away. Raises OSError."""
    handler: logging.Handler = logging.StreamHandler()
    if path:
        from logging.handlers import WatchedFileHandler  # half a megabyte that most do not need

        handler = WatchedFileHandler(path)
    if log_format == "json":
        handler.setFormatter(JsonLog())
    else:
        handler.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s][%(name)s] %(message)s"))
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)


async def validate(server: Any) -> int:
    """Say whether the configuration is good, without binding anything."""
    for warning in server.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    try:
        await server.check()
    except OSError as error:
        print(f"{server.source}: {error}", file=sys.stderr)
        return 1
    print(f"configuration '{server.source}' OK")
    return 0


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as it may allow itself: the soft limit is for programs that use select()."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # some systems name a hard limit that they do not grant
        log.debug("the limit on open files stays as it is: %s", error)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    given_arguments = sys.argv[1:] if arguments is None else arguments
    if given_arguments[:1] == ["explain"]:
        from sidecar.explain_command import main as explain

        return explain(given_arguments[1:])
    options = parser().parse_args(arguments)
    try:
        set_up_logging(options.log_level, options.log_format, options.log_path)
    except OSError as error:
        print(f"--log-path: {error}", file=sys.stderr)
        return 1
    given = [name for name in _ACCEPTED if getattr(options, name[2:].replace("-", "_")) is not None]
    if given:
        log.debug("accepted, and without effect here: %s", ", ".join(given))
    if options.config is None and options.config_yaml is None:
        print("no configuration: pass --config FILE or --config-yaml YAML (--help lists all options)", file=sys.stderr)
        return 1
    try:
        import uvloop
    except ImportError:
        log.warning("uvloop is not installed: running on asyncio's own event loop, which is slower")
        run = asyncio.run
    else:
        run = uvloop.run
    from sidecar.lifecycle.handover import HandoverError

    raise_descriptor_limit()
    try:
        return run(_run(options))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    except HandoverError as error:
        print(error, file=sys.stderr)
        return 1


def xds_state_directory() -> str:
    """Where dynamic resources are kept unless somebody says otherwise. Source: XDG Base Directory Specification."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "mizzen", "xds")


def _shown(options: argparse.Namespace) -> dict[str, Any]:
    """The options as /server_info shows them: under Envoy's names, in Envoy's forms."""
    return {
        **vars(options),
        "base_id": str(options.base_id or 0),
        "base_id_path": options.base_id_path or "",
        "drain_time": f"{options.drain_time_s:g}s",
        "parent_shutdown_time": f"{options.parent_shutdown_time_s:g}s",
        "drain_strategy": options.drain_strategy.capitalize(),
    }


async def _run(options: argparse.Namespace) -> int:
    """Make what the options ask for, and run it to its end; the exit status."""
    from sidecar.lifecycle.environment import worker_of_environment
    from sidecar.server import Server

    worker = worker_of_environment()
    if worker is None and options.concurrency > 1 and options.mode == "serve":
        return await _run_workers(options)
    server = Server(
        options.config if worker is None else _given(worker[2].pop(0)),
        config_yaml=options.config_yaml if worker is None else None,
        drain_time=options.drain_time_s,
        announce_time=options.drain_announce_s,
        drain_strategy=options.drain_strategy,
        service_node=options.service_node,
        service_cluster=options.service_cluster,
        options=_shown(options),
        seed=options.seed,
        xds_state_dir=xds_state_directory() if options.xds_state_dir is None else options.xds_state_dir,
        worker=None if worker is None else worker[0],
    )
    if worker is not None:
        server.source = options.config or "--config-yaml"
        server.warnings = []  # the parent has said them
        return await _work(server, *worker)
    if options.mode == "validate":
        return await validate(server)
    from sidecar.lifecycle.predecessors import find_predecessor
    from sidecar.lifecycle.serving import Serving

    base_id, successor = find_predecessor(options)
    serving = Serving(
        server,
        parent_shutdown_time=options.parent_shutdown_time_s,
        restart_timeout=options.restart_timeout_s,
        base_id=base_id,
        successor=successor,
    )
    return await serving.run()


async def _run_workers(options: argparse.Namespace) -> int:
    """Be the parent of several workers."""
    from sidecar.fleet import Fleet
    from sidecar.lifecycle.predecessors import find_predecessor
    from sidecar.server import load

    def read() -> Any:
        return load(options.config, options.config_yaml, options.service_node, options.service_cluster)

    base_id, successor = find_predecessor(options)
    fleet = Fleet(
        read,
        options.concurrency,
        drain_time=options.drain_time_s,
        announce_time=options.drain_announce_s,
        parent_shutdown_time=options.parent_shutdown_time_s,
        restart_timeout=options.restart_timeout_s,
        base_id=base_id,
        successor=successor,
    )
    return await fleet.run()


def _given(descriptor: int) -> Any:
    """The Bootstrap message that the parent of this worker has read for it."""
    from sidecar.bootstrap.load import BOOTSTRAP
    from sidecar.config.extensions import message_class

    message = message_class(BOOTSTRAP)()
    message.ParseFromString(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    os.close(descriptor)
    return message


async def _work(server: Any, number: int, sock: Any, shared: list[int]) -> int:
    """Be one of several workers, whose parent is at the other end of ``sock``."""
    from sidecar.lifecycle.worker_link import WorkerLink
    from sidecar.listener.balanced import Balancer
    from sidecar.telemetry.merged import snapshot

    board, inbox, *outboxes = shared
    server.balancer = Balancer(asyncio.get_running_loop(), number, board, inbox, outboxes)
    return await WorkerLink(server, sock, lambda: snapshot(server.stack.scraped_store())).run()


if __name__ == "__main__":
    sys.exit(main())
