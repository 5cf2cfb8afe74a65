"""Show what both proxies do with one case: ``python -m tests.differential CASE``.

A name with ``*`` shows every case that matches; without a name the cases are listed. ``--log`` compares the logs too.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import sys
from collections.abc import Sequence

from tests.differential.case import Case
from tests.differential.cases import CASES
from tests.differential.known_differences import idle, unaccounted
from tests.differential.outcome import Difference
from tests.differential.proxies import ProxyFailedError, subject_kind
from tests.differential.runner import Run, Runner


def show(side: str, run: Run) -> None:
    """Print the bytes that the client got and every field of the outcome."""
    print(f"--- {side}")
    for number, data in run.received.items():
        print(f"client[{number}] received:")
        print("    " + data.decode("latin-1").replace("\r\n", "\\r\\n\n    "))
    for name, value in run.fields.items():
        print(f"  {name} = {value!r}")


def compare(runner: Runner, case: Case, every: dict[str, list[Difference]], *, verbose: bool, log: bool) -> bool:
    """Run one case and keep what was found; True when both proxies did the same, or differ only as listed."""
    try:
        exchange = runner.exchange(case)
        found = exchange.differences()
        if log and case.access_log:
            found += runner.access_log(case)
    except ProxyFailedError as error:
        print(f"{case.name}: {error}")
        return False
    if verbose:
        show("envoy", exchange.envoy)
        show(runner.subject, exchange.subject)
    every[case.name] = found
    silent = unaccounted(case.name, found)
    print(f"{case.name}: {len(found)} differences, {len(silent)} of them not listed")
    for difference in found:
        print(f"  {' ' if difference not in silent else '!'} {difference}")
    return not silent


def exchange_all(runner: Runner, cases: Sequence[Case]) -> None:
    """Run every case before the logs are looked at, for which the proxies must end."""
    for case in cases:
        with contextlib.suppress(ProxyFailedError):
            runner.exchange(case)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("case", nargs="?", help="a case's name, or a pattern with *")
    parser.add_argument("--log", action="store_true", help="compare the access-log lines too")
    parser.add_argument("--quiet", action="store_true", help="print the differences only")
    chosen = parser.parse_args()
    if chosen.case is None:
        print("\n".join(case.name for case in CASES))
        return 0
    cases = [case for case in CASES if fnmatch.fnmatch(case.name, chosen.case)]
    if not cases:
        parser.error(f"no case is named {chosen.case}")
    runner = Runner(subject_kind())
    every: dict[str, list[Difference]] = {}
    try:
        if chosen.log:
            exchange_all(runner, cases)
        same = [compare(runner, case, every, verbose=not chosen.quiet, log=chosen.log) for case in cases]
    finally:
        runner.close()
    for entry in idle(every, log=chosen.log):
        print(f"listed and not found in these cases: {entry}")
    print(f"{sum(same)} of {len(same)} cases as in Envoy")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
