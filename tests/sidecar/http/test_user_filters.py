"""Filters of users in the chain: they change, answer, pause and resume, and one that raises fails closed by its name."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sidecar.core.head import Field
from sidecar.core.http_filter import PAUSE, HttpFilter
from tests.sidecar.http.running import GET, HELLO, Sidecar, running, user_filter

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"
TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 2\r\n\r\n"
WITH_TRAILERS: dict[str, Any] = {
    "manager": {"http_protocol_options": {"enable_trailers": True}},
    "clusters": {
        "up": {
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
                }
            }
        }
    },
}


class Recording(HttpFilter):
    """Notes what it is called with; ``streams`` are those it saw."""

    def __init__(self, config: Any) -> None:
        self.calls: list[Any] = []
        self.streams: list[Any] = []

    def on_request(self, stream: Any, end: bool) -> bool | None:
        self.streams.append(stream)
        self.calls.append(("request", end))
        return None

    def on_request_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        self.calls.append(("request data", data, end))
        return data

    def on_request_trailers(self, stream: Any, trailers: list[Field]) -> None:
        self.calls.append(("request trailers", trailers))

    def on_response(self, stream: Any, end: bool) -> bool | None:
        self.calls.append(("response", stream.response.status, end))
        return None

    def on_response_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        self.calls.append(("response data", data, end))
        return data

    def on_response_trailers(self, stream: Any, trailers: list[Field]) -> None:
        self.calls.append(("response trailers", trailers))

    def on_complete(self, stream: Any) -> None:
        self.calls.append("complete")


class PausesRequest(Recording):
    def on_request(self, stream: Any, end: bool) -> bool | None:
        super().on_request(stream, end)
        return PAUSE


class PausesResponse(Recording):
    def on_response(self, stream: Any, end: bool) -> bool | None:
        return PAUSE


class Answers(Recording):
    def on_request(self, stream: Any, end: bool) -> bool | None:
        super().on_request(stream, end)
        return bool(stream.reply(418, b"short and stout", details="teapot", headers=[(b"x-pot", b"1")]))


class AnswersLate(Recording):
    """Answers at the end of the request's body."""

    def on_request_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        if end:
            stream.reply(422, b"seen it all", details="judged")
        return data


def chain(*filters: HttpFilter, **more: Any) -> Any:
    """A running sidecar with these filters, named one, two, three."""
    names = ("one", "two", "three")[: len(filters)]
    made = {name: (lambda config, instance=instance: instance) for name, instance in zip(names, filters, strict=True)}
    return running(None, made, filters=[user_filter(name) for name in names], **more)


def test_every_hook_is_called_in_its_order() -> None:
    one = Recording({})
    with chain(one, **WITH_TRAILERS) as sidecar:
        client = sidecar.client().send(CHUNKED)
        assert sidecar.host.receive().endswith(b"\r\n4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n")
        sidecar.host.send(TRAILERS)
        assert client.receive().endswith(b"\r\n5\r\nhello\r\n0\r\nx-sum: 2\r\n\r\n")
        assert one.calls == [
            ("request", False),
            ("request data", b"body", False),
            ("request trailers", [(b"x-sum", b"1")]),
            ("response", 200, False),
            ("response data", b"hello", False),
            ("response data", b"", True),
            ("response trailers", [(b"x-sum", b"2")]),
            "complete",
        ]


def test_a_paused_request_goes_on_when_it_is_resumed() -> None:
    one, two = PausesRequest({}), Recording({})
    with chain(one, two) as sidecar:
        client = sidecar.client().send(POST + b"bo")
        assert sidecar.hosts == [] and two.calls == []
        one.streams[0].resume_request()
        assert sidecar.host.receive().endswith(b"\r\n\r\nbo")
        client.send(b"dy")
        assert sidecar.host.receive() == b"dy"
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        assert two.calls[:3] == [("request", False), ("request data", b"bo", False), ("request data", b"dy", True)]


def test_what_is_pipelined_behind_a_paused_request_waits() -> None:
    one = PausesRequest({})
    with chain(one) as sidecar:
        client = sidecar.client().send(GET + GET.replace(b"/ ", b"/second "))
        assert len(one.streams) == 1
        one.streams[0].resume_request()
        sidecar.host.send(HELLO)
        assert client.receive().count(b"hello") == 1
        one.streams[1].resume_request()
        assert sidecar.host.receive().count(b"GET /second ") == 1
        sidecar.host.send(HELLO)
        assert client.receive().count(b"hello") == 1


def test_a_pause_has_a_deadline() -> None:
    with running(None, {"one": PausesRequest}, filters=[user_filter("one", pause_timeout=2)]) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(1.9)
        assert client.receive() == b""
        sidecar.advance(0.2)
        assert client.receive().startswith(b"HTTP/1.1 504 ")
        assert sidecar.log[0].split()[5] == "filter_timeout"


def test_a_paused_request_whose_client_leaves() -> None:
    one = PausesRequest({})
    with chain(one) as sidecar:
        sidecar.client().send(GET).close()
        assert one.calls == [("request", True), "complete"]
        one.streams[0].resume_request()  # does no harm
        assert sidecar.hosts == []


def test_more_of_a_body_than_a_pause_can_hold_is_413() -> None:
    one = PausesRequest({})
    with chain(one, listener={"per_connection_buffer_limit_bytes": 1000}) as sidecar:
        client = sidecar.client().send(POST.replace(b"4", b"5000"), b"x" * 900, b"x" * 900)
        assert client.receive().startswith(b"HTTP/1.1 413 ")
        assert client.closed


def test_a_paused_response_goes_on_when_it_is_resumed() -> None:
    one = PausesResponse({})
    with chain(one) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO[:-2])
        assert client.receive() == b""
        one.streams[0].resume_response()
        assert client.receive().endswith(b"\r\n\r\nhel")
        sidecar.host.send(HELLO[-2:])
        assert client.receive() == b"lo"


def test_a_whole_response_that_was_paused() -> None:
    one = PausesResponse({})
    with chain(one) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        one.streams[0].resume_response()
        assert client.receive().endswith(b"\r\n\r\nhello")
        client.send(GET)
        sidecar.host.send(HELLO)
        one.streams[1].resume_response()
        assert client.receive().endswith(b"\r\n\r\nhello")


def test_a_filter_that_answers() -> None:
    one, two = Recording({}), Answers({})
    with chain(one, two) as sidecar:
        client = sidecar.client().send(GET)
        assert sidecar.hosts == []
        reply = client.receive()
        assert (
            reply.startswith(b"HTTP/1.1 418 ") and b"\r\nx-pot: 1\r\n" in reply and reply.endswith(b"short and stout")
        )
        assert one.calls == [
            ("request", True),
            ("response", 418, False),
            ("response data", b"short and stout", True),
            "complete",
        ]
        assert sidecar.log == ["GET / HTTP/1.1 418 - teapot 0 15 0 up 0\n"]
        assert not client.closed


def test_a_filter_that_answers_when_it_has_seen_the_body() -> None:
    with chain(AnswersLate({})) as sidecar:
        client = sidecar.client().send(POST + b"bo")
        assert client.receive() == b""
        client.send(b"dy")
        assert client.receive().endswith(b"seen it all")
        assert sidecar.host.closed  # what went upstream is cut off
        assert sidecar.log[0].split()[3:6] == ["422", "-", "judged"]


HOOKS = {
    "on_request": (GET, 500),
    "on_request_data": (POST + b"body", 500),
    "on_request_trailers": (CHUNKED, 500),
    "on_response": (GET, 500),
    "on_response_data": (GET, 0),  # the head has gone: the connection ends
    "on_response_trailers": (GET, 0),
}


def failing(hook: str) -> HttpFilter:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of order")

    kind: type[HttpFilter] = type("Failing", (HttpFilter,), {hook: fail})
    return kind()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_filter_that_raises_fails_closed_by_name(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    sent, status = HOOKS[hook]
    others = Recording({}), Recording({})
    with caplog.at_level(logging.ERROR), chain(others[0], failing(hook), others[1], **WITH_TRAILERS) as sidecar:
        client = sidecar.client().send(sent)
        if sidecar.hosts and not sidecar.host.closed:
            sidecar.host.send(TRAILERS)
        reply = client.receive()
        assert sidecar.log[0].split()[5] == "filter_failed"
        if status:
            assert reply.startswith(b"HTTP/1.1 500 ")
            assert b"hello" not in reply
        else:
            assert client.transport.closing and not reply.endswith(b"0\r\n\r\n")
        assert [other.calls.count("complete") for other in others] == [1, 1]
        (record,) = caplog.records
        assert record.getMessage().startswith("HTTP filter two failed;")
        assert record.exc_text is not None and "out of order" in record.exc_text


def test_a_filter_that_raises_when_all_is_over_keeps_no_line_from_the_log() -> None:
    sidecar = Sidecar(None, {"one": lambda config: failing("on_complete")}, filters=[user_filter("one")])
    sidecar.client().send(GET)
    sidecar.host.send(HELLO)
    assert len(sidecar.log) == 1
