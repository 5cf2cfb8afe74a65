"""Sessions in cookies and headers: what the filter asks for, what it tells the client, and what it counts."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host import Host
from sidecar.config.filters.stateful_session import (
    CookieSessionState,
    HeaderSessionState,
    SessionState,
    StatefulSession,
)
from sidecar.core import response_flags as flag
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.override_host import OVERRIDE_HOST, OverrideHost
from sidecar.filters.context import FilterContext
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.filters.session_state import cookie_of, decode, is_below, parse_cookie
from sidecar.filters.stateful_session import StatefulSessionFilter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

A, B = Host(Address("10.0.0.1", 80)), Host(Address("10.0.0.2", 80))
HEADER = HeaderSessionState(b"x-session")


def base64(address: str) -> bytes:
    return b64encode(address.encode())


def exchange(
    context: FilterContext, config: StatefulSession, request: RequestHead, host: Any = A, status: int = 200
) -> FakeStream:
    stream = FakeStream(FakeWorker(), [make_filter(config, "session", context)], request)
    stream.ask()
    stream.host = host
    return stream.answer(status, [(b"content-length", b"0")])


def counted(context: FilterContext, prefix: str = "p") -> dict[str, int]:
    stats = context.stats("stateful_session", prefix)
    return {name: getattr(stats, name) for name in ("routed", "failed_open", "failed_closed", "no_session")}


def context_with_clock() -> FilterContext:
    context = make_context()
    worker: Any = context.worker
    worker.epoch = 1_000_000.0
    return context


def test_the_first_request_of_a_session_goes_anywhere_and_the_client_is_told_where() -> None:
    context = context_with_clock()
    stream = exchange(context, StatefulSession(HEADER, stat_prefix="p"), get(b"/"))
    assert OVERRIDE_HOST not in stream.data
    assert stream.response is not None and stream.response.get(b"x-session") == base64("10.0.0.1:80")
    assert counted(context) == {"routed": 0, "failed_open": 1, "failed_closed": 0, "no_session": 0}


def test_further_requests_ask_for_that_host() -> None:
    context = context_with_clock()
    request = get(b"/", (b"x-session", base64("10.0.0.1:80")))
    stream = exchange(context, StatefulSession(HEADER, stat_prefix="p"), request)
    assert stream.data[OVERRIDE_HOST] == OverrideHost("10.0.0.1:80", False)
    assert stream.response is not None and b"x-session" not in stream.response.index
    assert counted(context)["routed"] == 1


@pytest.mark.parametrize(("strict", "failed_open"), [(False, 1), (True, 0)])
def test_a_host_that_is_another_than_asked_for_is_told(strict: bool, failed_open: int) -> None:
    context = context_with_clock()
    request = get(b"/", (b"x-session", base64("10.0.0.1:80")))
    stream = exchange(context, StatefulSession(HEADER, strict, "p"), request, B)
    assert stream.data[OVERRIDE_HOST].strict is strict
    assert stream.response is not None and stream.response.get(b"x-session") == base64("10.0.0.2:80")
    assert counted(context) == {"routed": 0, "failed_open": failed_open, "failed_closed": 0, "no_session": 0}


def test_a_strict_session_whose_host_is_gone_is_counted() -> None:
    context = context_with_clock()
    for strict in (False, True):
        config = StatefulSession(HEADER, strict, "p")
        stream = FakeStream(FakeWorker(), [make_filter(config, "session", context)], get(b"/"))
        stream.ask()
        stream.reply(503, details="no_healthy_upstream", flags=flag.NO_HEALTHY_UPSTREAM)
    assert counted(context) == {"routed": 0, "failed_open": 0, "failed_closed": 1, "no_session": 0}


def test_without_a_session_state_requests_are_only_counted() -> None:
    context = context_with_clock()
    stream = exchange(context, StatefulSession(None, stat_prefix="p"), get(b"/"))
    assert stream.response is not None and stream.response.fields == [(b"content-length", b"0")]
    exchange(context, StatefulSession(None, stat_prefix="p"), get(b"/"), None)
    assert counted(context)["no_session"] == 1


def test_what_does_nothing_has_no_hooks() -> None:
    chain = FilterChain([make_filter(StatefulSession(), "session", make_context())])
    assert not chain.request and not chain.response


def test_a_filter_that_was_not_reached_tells_nothing() -> None:
    context = context_with_clock()
    filter = make_filter(StatefulSession(HEADER, stat_prefix="p"), "session", context)
    stream = FakeStream(FakeWorker(), [filter], get(b"/"))
    stream.host = None
    stream.reply(403, details="rbac_access_denied")
    assert stream.response is not None and b"x-session" not in stream.response.index
    assert sum(counted(context).values()) == 0


def test_a_route_has_a_session_of_its_own_or_none() -> None:
    context = context_with_clock()
    base = make_filter(StatefulSession(HEADER, stat_prefix="p"), "session", context)
    own = make_route_filter(base, StatefulSession(HEADER), StatefulSession(HeaderSessionState(b"x-own"), True), context)
    off = make_route_filter(base, StatefulSession(HEADER), StatefulSession(), context)
    assert isinstance(own, StatefulSessionFilter) and own.strict and own.stats is None
    assert not FilterChain([off]).request


def cookie(**fields: Any) -> StatefulSession:
    return StatefulSession(CookieSessionState(b"s", **fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, b'; HttpOnly'),
        ({"path": b"/"}, b"; Path=/; HttpOnly"),
        ({"path": b"/a", "attributes": ((b"SameSite", b"Strict"), (b"Secure", b""))},
         b"; Path=/a; SameSite=Strict; Secure; HttpOnly"),
    ],
)  # fmt: skip
def test_the_cookie(fields: dict[str, Any], expected: bytes) -> None:
    stream = exchange(context_with_clock(), cookie(**fields), get(b"/a"))
    value = b64encode(b"\x0a\x0b10.0.0.1:80")
    assert stream.response is not None
    assert stream.response.get_all(b"set-cookie") == [b's="' + value + b'"' + expected]


def test_a_cookie_ends_with_its_time() -> None:
    context = context_with_clock()
    stream = exchange(context, cookie(ttl=60), get(b"/"))
    assert stream.response is not None
    (line,) = stream.response.get_all(b"set-cookie")
    value = line[len(b's="') : line.index(b'"', 3)]
    assert line.endswith(b'"; Max-Age=60; HttpOnly')
    worker: Any = context.worker
    for waits, asks in ((60.0, True), (1.5, False)):
        worker.now += waits
        request = get(b"/", (b"cookie", b"a=b; s=" + value))
        stream = exchange(context, cookie(ttl=60), request)
        assert (OVERRIDE_HOST in stream.data) is asks


@pytest.mark.parametrize(
    ("path", "parent", "below"),
    [
        (b"/a", b"", True),
        (b"/a", b"/a", True),
        (b"/a/b", b"/a", True),
        (b"/a?b", b"/a", True),
        (b"/a#b", b"/a", True),
        (b"/ab", b"/a", False),
        (b"/b", b"/a", False),
        (b"/a", b"/a/", False),
        (b"/a/", b"/a/", True),
        (b"/a/b", b"/a/", True),
    ],
)
def test_which_paths_a_cookie_is_for(path: bytes, parent: bytes, below: bool) -> None:
    assert is_below(path, parent) is below


def test_requests_of_other_paths_belong_to_no_session() -> None:
    stream = exchange(context_with_clock(), cookie(path=b"/a"), get(b"/b"))
    assert stream.response is not None and b"set-cookie" not in stream.response.index


@pytest.mark.parametrize("text", [b"garbage", b"ga=rbage", b"****", b"YQ", b"YR==", "é".encode(), b"YQ==YQ=="])
def test_what_is_not_strictly_base64_is_nothing(text: bytes) -> None:
    assert decode(text) == b""


@pytest.mark.parametrize(
    ("message", "address"),
    [
        (b"", ""),
        (b"127.0.0.1:80", "127.0.0.1:80"),
        (b"\x0a\x0210", "10"),
        (b"\x0a\x0510", "\n\x0510"),
        (b"\x10\x05", ""),
        (b"\x0a\x011\x1d....", "1"),
        (b"\x0a\x011\x19........", "1"),
        (b"\x0a\x011\x1a\x01x", "1"),
        (b"\x0a\x01\xff", "\n\x01\xff"),
    ],
)
def test_old_cookies_are_the_address_alone(message: bytes, address: str) -> None:
    assert parse_cookie(message, 0.0) == address


@given(st.text(min_size=1), st.integers(0, 2**62))
def test_what_is_written_can_be_read(address: str, ends: int) -> None:
    assert parse_cookie(cookie_of(address, ends), ends) == address
    assert parse_cookie(cookie_of(address, ends), ends + 1) == ("" if ends else address)


@given(st.binary(max_size=40), st.sampled_from([HEADER, CookieSessionState(b"s")]))
def test_no_client_can_do_harm(value: bytes, state: SessionState) -> None:
    fields = [(b"x-session", b64encode(value)), (b"cookie", b"s=" + b64encode(value))]
    stream = exchange(context_with_clock(), StatefulSession(state), get(b"/", *fields))
    assert stream.response is not None
