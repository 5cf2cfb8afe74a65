"""The command line: ``python -m sidecar --config FILE``, with Envoy's own options."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from typing import Any

from sidecar import __version__
from sidecar.config.problems import ConfigurationError

log = logging.getLogger("sidecar.main")

_LEVELS = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
    "warn": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL, "off": logging.CRITICAL + 1,
}  # fmt: skip

# Envoy's options that make no difference here, with the number of their arguments.
_ACCEPTED = {
    "--base-id": 1, "--base-id-path": 1, "--use-dynamic-base-id": 0, "--skip-hot-restart-on-no-parent": 0,
    "--restart-epoch": 1, "--parent-shutdown-time-s": 1, "--drain-strategy": 1, "--hot-restart-version": 0,
    "--disable-hot-restart": 0, "--file-flush-interval-msec": 1, "--file-flush-min-size-kb": 1,
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
    made.add_argument("--drain-time-s", type=float, default=600.0, metavar="SECONDS", help="how long a drain may take")
    made.add_argument("--service-node", default="", metavar="ID", help="node.id")
    made.add_argument("--service-cluster", default="", metavar="NAME", help="node.cluster")
    made.add_argument("--concurrency", type=int, default=1, metavar="N", help="only 1: one process, one event loop")
    made.add_argument("--seed", type=int, metavar="N", help="make what is left to chance repeatable")
    made.add_argument("--version", action="version", version=f"mizzen sidecar {__version__}")
    for option, arguments in _ACCEPTED.items():
        if arguments:
            made.add_argument(option, help=argparse.SUPPRESS)
        else:
            made.add_argument(option, action="store_true", default=None, help=argparse.SUPPRESS)
    return made


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


async def serve(server: Any) -> int:
    """Run until a signal; a first SIGTERM or SIGINT drains, a second one stops at once. SIGUSR1 reopens log files."""
    from sidecar.server import notify_supervisor

    loop = asyncio.get_running_loop()
    now = asyncio.Event()
    starting = loop.create_task(server.start())
    draining: list[asyncio.Task[None]] = []

    async def drain_and_stop() -> None:
        await server.drain()
        now.set()

    def on_signal(name: str) -> None:
        if draining:
            log.warning("%s again: stopping at once", name)
            now.set()
            return
        if not starting.done():
            log.info("%s: stopping before the start was complete", name)
            starting.cancel()
            return
        log.info("%s: draining for at most %.0f seconds", name, server.drain_time)
        notify_supervisor("STOPPING=1")
        draining.append(loop.create_task(drain_and_stop()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    loop.add_signal_handler(signal.SIGUSR1, server.reopen_logs)
    server.quit = now.set
    try:
        await starting
    except asyncio.CancelledError:
        return 0
    except OSError as error:
        log.critical("cannot start: %s", error)
        return 1
    notify_supervisor("READY=1")
    await now.wait()
    await server.stop()
    for task in draining:
        task.cancel()
    log.info("stopped")
    return 0


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = parser().parse_args(arguments)
    try:
        set_up_logging(options.log_level, options.log_format, options.log_path)
    except OSError as error:
        print(f"--log-path: {error}", file=sys.stderr)
        return 1
    given = [name for name in _ACCEPTED if getattr(options, name[2:].replace("-", "_")) is not None]
    if given:
        log.debug("accepted, and without effect here: %s", ", ".join(given))
    if options.concurrency != 1:
        print("--concurrency: only 1 is implemented; leave it out", file=sys.stderr)
        return 1
    if options.config is None and options.config_yaml is None:
        print("no configuration: pass --config FILE or --config-yaml YAML (--help lists all options)", file=sys.stderr)
        return 1
    from sidecar.server import Server

    try:
        try:
            import uvloop
        except ImportError:
            log.warning("uvloop is not installed: running on asyncio's own event loop, which is slower")
            run = asyncio.run
        else:
            run = uvloop.run

        async def make_and_run() -> int:
            server = Server(
                options.config,
                config_yaml=options.config_yaml,
                drain_time=options.drain_time_s,
                service_node=options.service_node,
                service_cluster=options.service_cluster,
                options=vars(options),
                seed=options.seed,
            )
            return await (validate(server) if options.mode == "validate" else serve(server))

        return run(make_and_run())
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
