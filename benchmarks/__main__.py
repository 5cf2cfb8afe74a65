"""`python -m benchmarks`: our sidecar beside Envoy, HAProxy and nginx, on the same core, in one table.

`python -m benchmarks control-plane` measures the other half, `python -m benchmarks citadel` its certificates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from benchmarks import proxies
from benchmarks.cells import concurrency, connections, grpc, http, http2, idle, latency, memory, scrape, tcp, tls
from benchmarks.context import Context
from benchmarks.load import FailedRequests
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied, stay_off_the_proxy_core
from benchmarks.results import Row
from benchmarks.table import as_json, as_text

CELLS: Mapping[str, Callable[[Context], list[Row]]] = {
    "route-bare": http.route_bare,
    "route-calls": http.route_calls,
    "https-in": tls.https_in,
    "handshakes": tls.new_sessions,
    "handshakes-resumed": tls.resumed_sessions,
    "mtls": tls.mtls,
    "mtls-sds": tls.mtls_sds,
    "h2-8x16": http2.same_8x16,
    "h2-32x1": http2.same_32x1,
    "h2-8x16-varied": http2.varied_8x16,
    "h2-32x1-varied": http2.varied_32x1,
    "bridge-1-2": http2.bridge_up,
    "bridge-2-1": http2.bridge_down,
    "grpc-unary-100": grpc.unary_100,
    "grpc-unary-10k": grpc.unary_10k,
    "grpc-stream": grpc.stream,
    "mesh-bare": http.mesh_bare,
    "mesh-calls": http.mesh_calls,
    "jwt-cached": http.jwt_cached,
    "jwt-cached-stripped": http.jwt_cached_stripped,
    "rbac-100": http.rbac_100,
    "half-route": latency.half_route,
    "half-mesh": latency.half_mesh,
    "tcp": tcp.tcp,
    "bodies": http.bodies,
    "concurrency": concurrency.concurrency,
    "small": memory.small,
    "large": memory.large,
    "connections": connections.idle_connections,
    "tls-idle": idle.tls_connections,
    "h2-idle-streams": idle.http2_streams,
    "scrape": scrape.scrape,
    "growth": memory.growth,
}

LONG = ("growth",)
"""Cells that take minutes: run when they are named, or with --long."""


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parse


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names(list(CELLS)), metavar="CELL[,CELL]", help=f"of: {', '.join(CELLS)}")
    parser.add_argument("--proxies", type=_names(proxies.NAMES), default=list(proxies.NAMES), metavar="NAME[,NAME]")
    parser.add_argument("--rounds", type=int, help="turns that every proxy gets (5; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one run (5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--long", action="store_true", help=f"with the cells that take minutes: {', '.join(LONG)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--profile", type=Path, metavar="DIRECTORY", help="profile our sidecar in the HTTP cells")
    options = parser.parse_args(argv)
    options.only = options.only or [cell for cell in CELLS if options.long or cell not in LONG]
    return options


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str], list[str]]:
    """Run the cells that were asked for: their rows, the proxies that are not installed, and what went wrong."""
    rows: list[Row] = []
    absent: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mizzen-benchmarks-") as directory:
        context = Context(
            proxies=[],
            rounds=options.rounds or (1 if options.quick else 5),
            seconds=options.seconds or (1.0 if options.quick else 5.0),
            directory=Path(directory),
            quick=options.quick,
            profile=options.profile,
        )
        for name in options.proxies:
            try:
                context.proxies.append(proxies.find(name))
            except proxies.ProxyMissing as missing:
                absent.append(f"{name} is not measured: {missing}")
        for cell in options.only:
            print(cell, file=sys.stderr, flush=True)
            try:
                rows += CELLS[cell](context)
            except (ProcessDied, NotReady, FailedRequests, LookupError, OSError) as error:
                context.problem(f"{cell} is not measured: {error}")
    return rows, absent, context.problems


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 when everything that is installed was measured, 1 when something, or all, could not be."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["control-plane"]:
        from benchmarks.control_plane import runner  # it needs other libraries, and no proxy

        return runner.main(given[1:])
    if given[:1] == ["citadel"]:
        from benchmarks.citadel import runner as citadel

        return citadel.main(given[1:])
    options = arguments(given)
    stay_off_the_proxy_core()
    signal.signal(signal.SIGTERM, _terminated)
    missing = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
    if missing:
        print(f"the benchmarks need {' and '.join(missing)}", file=sys.stderr)
        return 1
    rows, absent, problems = measure(options)
    print(as_text(rows))
    print(*absent, *problems, sep="\n")
    if options.json is not None:
        document = {"rows": as_json(rows), "absent": absent, "problems": problems}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
