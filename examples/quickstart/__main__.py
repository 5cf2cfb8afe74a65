"""Start two services and a sidecar in front of them, say what to try, and stop everything on Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import uvloop

from examples.quickstart.services import Service
from sidecar import Server

BOOTSTRAP = Path(__file__).with_name("envoy.yaml")
FIRST_PORT = 10000
DRAIN_SECONDS = 10.0
ROLES = ("the sidecar", "the sidecar's admin interface", "service v1", "service v2")

TO_TRY = """
Mizzen runs {file} on http://127.0.0.1:{sidecar} (admin: http://127.0.0.1:{admin}).
In another terminal, try:

  curl -i http://127.0.0.1:{sidecar}/
      "hello from v1" 9 times of 10, "hello from v2" the tenth: the weights in the route "split".

  for i in $(seq 100); do curl -s http://127.0.0.1:{sidecar}/; done | sort | uniq -c
      The split, counted; and not one error, although v2 fails every third request.

  curl -i -H 'x-version: v2' http://127.0.0.1:{sidecar}/
      Always v2: the route "v2-on-request" matches the header. Repeat it: where the response says
      "x-envoy-attempt-count: 2", v2 answered 503 and the sidecar asked it again.

  curl -s 'http://127.0.0.1:{admin}/stats?filter=cluster.v2.(retry.upstream_rq_5xx|upstream_rq_retry)'
      How often v2 failed, and how often a retry hid it.

Each request is a line of the access log below. Ctrl-C drains and stops everything.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM; the exit status: 0, or 1 with a message when a port is taken."""
    parser = argparse.ArgumentParser("python -m examples.quickstart", description=__doc__)
    parser.add_argument("--first-port", type=int, default=FIRST_PORT, metavar="N", help="use the ports N to N+3")
    first = parser.parse_args(arguments).first_port
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ports = range(first, first + len(ROLES))
    with ExitStack() as running:
        for role, port in zip(ROLES, ports, strict=True):
            try:
                if role.startswith("service"):
                    version = role.removeprefix("service ")
                    service = Service(version, port, fail_every=3 if version == "v2" else 0)
                    running.callback(service.stop)
                    service.start()
                else:
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", port))
            except OSError as error:
                other = 20000 if first < 20000 else 30000
                print(
                    f"port {port} on 127.0.0.1, for {role}, cannot be used: {error.strerror}\n"
                    f"See who has it with: ss -ltnp 'sport = :{port}'\n"
                    f"Or use other ports:  python -m examples.quickstart --first-port {other}",
                    file=sys.stderr,
                )
                return 1
        return uvloop.run(serve(first))


async def serve(first: int) -> int:
    """Run the sidecar until a signal; a second signal does not wait for the drain."""
    text = BOOTSTRAP.read_text()
    moved = re.sub(r"(?<=port_value: )\d+", lambda port: str(int(port[0]) - FIRST_PORT + first), text)
    server = Server(config_yaml=moved, drain_time=DRAIN_SECONDS)
    signalled, again = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (again if signalled.is_set() else signalled).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with server:
        print(TO_TRY.format(file="examples/quickstart/envoy.yaml", sidecar=first, admin=first + 1), flush=True)
        await signalled.wait()
        print("draining ...", flush=True)
        drain = asyncio.create_task(server.drain())
        await asyncio.wait([drain, asyncio.create_task(again.wait())], return_when=asyncio.FIRST_COMPLETED)
    print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
