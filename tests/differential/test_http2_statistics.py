"""After the same HTTP/2 both proxies have counted the same: the connection manager, the clusters and the codecs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import pytest

from tests.differential.case import Case
from tests.differential.cases import CASES
from tests.differential.known_differences import unaccounted
from tests.differential.outcome import Fields, Names, differences
from tests.differential.proxies import ENVOY, Proxy, ProxyFailedError
from tests.differential.runner import Runner
from tests.differential.test_admin import OWN_SCOPE, SCOPES, counted, judge, known_ports

SETTLE_SECONDS = 1.0
CODECS = "http2."

TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "plain": (
        "http2-plain/get-http",
        "http2-plain/get-down",
        "http2-plain/post-http",
        "http2-plain/post-down",
        "http2-plain/status-404-http",
        "http2-plain/status-500-down",
        "http2-plain/cookie-crumbs-http",
        "http2-plain/several-in-turn-http",
        "http2-plain/several-at-once-down",
        "http2-plain/ping",
        "http2-plain/two-connections",
        "http2-plain/http1-where-both-are",
        "http2-plain/only-http2",
    ),
    "trailers": (
        "http2-bridges/trailers-from-2-http",
        "http2-bridges/trailers-from-2-down",
        "http2-bridges/response-trailers-2",
        "http2-bridges/response-trailers-up",
        "http2-bridges/continue-unasked-2",
    ),
    "clients-that-reset": (
        "http2-responses/client-resets-CANCEL",
        "http2-responses/client-resets-NO_ERROR",
        "http2-responses/client-resets-REFUSED_STREAM",
        "http2-responses/client-resets-the-response-CANCEL",
        "http2-responses/client-resets-one-of-two",
    ),
    "hosts-that-reset": (
        "http2-responses/reset-before-CANCEL-2",
        "http2-responses/reset-after-INTERNAL_ERROR-2",
        "http2-responses/reset-before-ENHANCE_YOUR_CALM-1",
        "http2-responses/close-before-2",
        "http2-responses/close-after-1",
        "http2-responses/retry-refused-stream-refused",
        "http2-responses/retry-reset-broken",
        "http2-responses/refused-three-times-2",
        "http2-responses/timeout-2",
        "http2-responses/connection-refused",
    ),
    "hosts-that-leave": (
        "http2-responses/goaway-then-answer-2",
        "http2-responses/goaway-between-2",
        "http2-responses/retry-refused-stream-goaway-below",
        "http2-responses/goaway-and-close-2",
        "http2-responses/goaway-then-another-connection",
        "http2-responses/streams-limited-to-one-by-the-upstream",
        "http2-responses/streams-limited-to-one-by-the-cluster",
    ),
    "malformed-requests": (
        "http2-malformed/name-in-capitals",
        "http2-malformed/name-in-capitals-lenient-down",
        "http2-malformed/no-path",
        "http2-malformed/connection",
        "http2-malformed/length-too-small-lenient-down",
        "http2-malformed/frames-frame-too-large",
        "http2-malformed/frames-hpack-index-0",
    ),
    "malformed-responses": (
        "http2-responses/malformed-name-in-capitals-2",
        "http2-responses/malformed-name-in-capitals-lenient-2",
        "http2-responses/malformed-no-status-2",
        "http2-responses/malformed-length-too-large-lenient-2",
        "http2-responses/raw-hpack-broken-2",
    ),
    "limits": (
        "http2-features/kilobytes-too-many",
        "http2-features/fields-20",
        "http2-features/default-70-kb-in-pieces",
        "http2-features/underscore-rejected",
        "http2-features/underscore-dropped",
        "http2-features/requests-per-connection",
        "http2-features/idle-timeout-of-the-connection",
        "http2-features/connection-duration",
        "http2-features/request-timeout",
        "http2-features/stream-idle-timeout",
        "http2-features/stream-duration",
    ),
    "tunnels": (
        "http2-upgrades/websocket-http-down",
        "http2-upgrades/websocket-http-two",
        "http2-upgrades/websocket-from-http1-two",
        "http2-upgrades/websocket-not-configured-down",
        "http2-upgrades/connect-terminated",
        "http2-upgrades/connect-two",
    ),
}
_BY_NAME: Mapping[str, Case] = {case.name: case for case in CASES}


def counters(proxy: Proxy, names: Names) -> Fields:
    """Each counter and gauge of the compared scopes with its value, but those of compressors, which have other names here."""
    fields: Fields = {}
    for line in proxy.admin("/stats")[2].splitlines():
        name, _, value = known_ports(names, line).partition(": ")
        if value.isdigit() and name.startswith((*SCOPES, CODECS)):
            if not name.startswith((f"http.{OWN_SCOPE}", f"listener.{OWN_SCOPE}")) and ".compressor." not in name:
                fields[name] = counted(name, value)
    return fields


def compare_counters(runner: Runner, name: str, traffic: Sequence[str], only: str = "") -> None:
    """Both proxies count the same for these cases, once they have noticed that the last connections are closed.

    ``only``: a regular expression for those that are compared.
    """
    cases = [_BY_NAME[case] for case in traffic]
    runner.stop_pair()
    try:
        pair = runner.pair(cases[0].bootstrap)
    except ProxyFailedError as error:
        pytest.fail(str(error), pytrace=False)
    for case in cases:
        assert case.bootstrap == cases[0].bootstrap, case.name
        for proxy in pair:
            runner.run(case, proxy)
    runner.upstreams.begin({}, {})
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        found = differences(*(counters(proxy, runner.names(proxy)) for proxy in pair))
        found = [one for one in found if re.match(only, one.field)]
        if not (found if runner.subject == ENVOY else unaccounted(name, found)) or time.monotonic() > until:
            break
        time.sleep(0.05)
    runner.stop_pair()
    judge(name, found, runner.subject)


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_counters(runner: Runner, traffic: str) -> None:
    """The same after the same traffic."""
    compare_counters(runner, f"http2-statistics/{traffic}", TRAFFIC[traffic])
