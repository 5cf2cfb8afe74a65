"""After the same requests under the same pressure both proxies have counted the same, the overload manager's names included."""

from __future__ import annotations

import time

import pytest

from tests.differential.cases import CASES
from tests.differential.known_differences import unaccounted
from tests.differential.outcome import Fields, Names, differences
from tests.differential.proxies import ENVOY, Proxy, ProxyFailedError
from tests.differential.runner import Runner
from tests.differential.test_admin import OWN_SCOPE, SCOPES, counted, judge, known_ports

SETTLE_SECONDS = 2.0
OURS = ("overload.", "envoy.overload_actions.")
ELSEWHERE = (
    ".cors.",  # the filter counts when it has something to count
    "_buffered",
    ".downstream_cx_delayed_close_timeout",  # a last response ends with a FIN here, so that clients leave before
)
"""Parts of names that differ, and that have their own place in docs/differences-from-envoy.md."""
BOOTSTRAPS = sorted({case.bootstrap for case in CASES if case.name.startswith("overload/")})
LEFT_OUT = frozenset(
    (
        "overload/keepalive-twice",  # what is sent on a connection that is being closed
        "overload/both-twice",
        "overload/keepalive-filtered",
        "overload/both-filtered",
    )
)


def counters(proxy: Proxy, names: Names) -> Fields:
    """Each counter and gauge of the compared scopes and of the overload manager with its value."""
    fields: Fields = {}
    for line in proxy.admin("/stats")[2].splitlines():
        name, _, value = known_ports(names, line).partition(": ")
        if value.isdigit() and name.startswith((*SCOPES, *OURS)):
            own = name.startswith((f"http.{OWN_SCOPE}", f"listener.{OWN_SCOPE}"))
            if not own and not any(part in name for part in ELSEWHERE):
                fields[name] = counted(name, value)
    return fields


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_counters(runner: Runner, bootstrap: str) -> None:
    """The same after the same requests, once both proxies have noticed that the last connections are closed."""
    name = f"overload-statistics/{bootstrap.removeprefix('overload-')}"
    runner.stop_pair()
    try:
        pair = runner.pair(bootstrap)
    except ProxyFailedError as error:
        pytest.fail(str(error), pytrace=False)
    for case in CASES:
        if case.bootstrap == bootstrap and case.name not in LEFT_OUT:
            for proxy in pair:
                runner.run(case, proxy)
    runner.upstreams.begin({}, {})
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        found = differences(*(counters(proxy, runner.names(proxy)) for proxy in pair))
        if not (found if runner.subject == ENVOY else unaccounted(name, found)) or time.monotonic() > until:
            break
        time.sleep(0.05)
    runner.stop_pair()
    judge(name, found, runner.subject)
