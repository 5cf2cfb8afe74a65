"""`python -m benchmarks.serve`: the backend and the proxies of one shape, running until Ctrl-C.

For load generators that the harness does not drive (Locust, a browser, a profiler).
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import proxies
from benchmarks.backends import nginx_backend
from benchmarks.context import Context
from benchmarks.processes import stay_off_the_proxy_core
from benchmarks.turns import all_serving


def main(argv: Sequence[str] | None = None) -> int:
    """Print `NAME URL ADMIN-URL`, one line for each proxy that serves, then wait for SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--shape", choices=("route_only", "mesh_filters"), default="mesh_filters")
    parser.add_argument("--proxies", default="ours,envoy", metavar="NAME[,NAME]")
    options = parser.parse_args(argv)
    stay_off_the_proxy_core()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mizzen-benchmarks-") as directory:
        context = Context(proxies=[], rounds=1, seconds=1.0, directory=Path(directory))
        for name in options.proxies.split(","):
            try:
                context.proxies.append(proxies.find(name))
            except (KeyError, proxies.ProxyMissing) as error:
                context.problem(f"{name} is not served: {error}")
        try:
            with (
                nginx_backend(context.directory) as backend,
                all_serving(context, options.shape, backend.substitutions()) as running,
            ):
                for problem in context.problems:
                    print(problem, file=sys.stderr)
                for each in running.values():
                    print(each.name, each.url(""), f"http://127.0.0.1:{each.admin_port}", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
