import pytest

from sidecar.config.filters.buffer import Buffer
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context


def ask(limit, body, *fields):
    filter = make_filter(Buffer(limit), "buffer", make_context())
    return FakeStream(FakeWorker(), [filter], get(b"/", *fields, method=b"POST")).ask(body)


def test_a_request_without_a_body_is_not_held():
    stream = ask(10, b"")
    assert stream.forwarded
    assert stream.request.get(b"content-length") is None


def test_the_head_waits_for_the_body():
    filter = make_filter(Buffer(10), "buffer", make_context())
    stream = FakeStream(FakeWorker(), [filter], get(b"/", (b"transfer-encoding", b"chunked")))
    stream.request_from(-1, False)
    stream.push(b"abc", False)
    assert not stream.forwarded
    assert stream.sent == b""
    stream.push(b"def", True)
    assert stream.forwarded
    assert stream.sent == b"abcdef"
    assert stream.request.fields == [(b"content-length", b"6")]


def test_a_length_that_was_there_stays():
    stream = ask(10, b"abc", (b"content-length", b"3"))
    assert stream.request.fields == [(b"content-length", b"3")]


@pytest.mark.parametrize(("size", "passes"), [(999, True), (1000, True), (1001, False)])
def test_the_limit(size, passes):
    stream = ask(1000, [b"a" * (size - 500), b"b" * 500])
    assert stream.forwarded is passes
    if not passes:
        assert stream.replied == (413, b"Payload Too Large", "request_payload_too_large")
        assert stream.closes, "more of the body may follow"


def test_a_route_may_switch_it_off_or_have_its_own_limit():
    context = make_context()
    base = make_filter(Buffer(1), "buffer", context)
    off = make_route_filter(base, Buffer(1), Buffer(None), context)
    assert not FilterChain([off]).request
    more = make_route_filter(base, Buffer(1), Buffer(5), context)
    assert FakeStream(FakeWorker(), [more]).ask(b"abcde").forwarded
