"""The same from the other side: an upstream that attacks. Its request fails, its connection ends, others are answered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.attacks import frames as f
from tests.attacks.attacker import Attacker
from tests.attacks.conftest import Setting
from tests.grpc.http2_client import Http2Client, Response
from tests.grpc.subjects import eventually

MANY = 30_000
OK = f.block([(":status", "200")])
CONTINUE = f.block([(":status", "100")])


def in_response(*parts: Callable[[int], bytes], count: int = MANY) -> Callable[[int], Iterator[bytes]]:
    """The first parts, and the last one without end, each made for the stream."""

    def chunks(stream: int) -> Iterator[bytes]:
        for part in parts[:-1]:
            yield part(stream)
        yield from itertools.repeat(parts[-1](stream), count)

    return chunks


ENDING: dict[str, Callable[[int], Iterator[bytes]]] = {
    "continuation": in_response(
        lambda s: f.headers(s, OK, end=False, whole=False), lambda s: f.continuation(s, bytes(1))
    ),
    "continuation of nothing": in_response(lambda s: f.headers(s, OK, whole=False), lambda s: f.continuation(s, b"")),
    "large continuation": in_response(
        lambda s: f.headers(s, OK, whole=False),
        lambda s: f.continuation(s, b"\x00\x01a\x7f\xff\x7e" + b"b" * 16378),
        count=1000,
    ),
    "empty data": in_response(lambda s: f.headers(s, OK, end=False), lambda s: f.data(s)),
    "windows": in_response(lambda s: f.window_update(0, 1)),
    "windows of the stream": in_response(lambda s: f.window_update(s, 1)),
    "priorities": in_response(lambda s: f.priority(s)),
    "a push": in_response(lambda s: f.frame(f.PUSH_PROMISE, 4, s, b"\0\0\0\2" + f.request("/")), count=1),
    "a frame too large": in_response(lambda s: f.frame(f.DATA, 0, s, length=1 << 20), count=1),
    "invalid compression": in_response(lambda s: f.headers(s, b"\xff" * 20), count=1),
    "no status": in_response(lambda s: f.headers(s, f.block([("a", "b")])), count=1),
    "trailers only at once": in_response(lambda s: f.data(s, b"no head", end=True), count=1),
    "a window beyond its largest": in_response(lambda s: f.window_update(0, f.LARGEST), count=1),
    "a stream that nobody opened": in_response(lambda s: f.headers(s + 2, OK), count=1),
}


@pytest.fixture(autouse=True)
def nothing_left(setting: Setting) -> Iterator[None]:
    """No attack goes on behind its test."""
    yield
    setting.hostile.hang_up()


def asked(setting: Setting, path: str = "/hostile") -> Response:
    """What a client gets, once it is whole or was reset; its connection must still be good."""
    with Http2Client(setting.port, timeout=8) as client:
        found = client.get(path)
        assert client.get("/direct").status == 200
        assert not client.goaways
        return found


def ended(setting: Setting, attacker_count: int = 1) -> list[Attacker]:
    """The attackers whose connections are over."""
    eventually(lambda: len(setting.hostile.over) >= attacker_count, "the upstream's attack is over", 10)
    assert not setting.hostile.failures, setting.hostile.failures
    return setting.hostile.over


@pytest.mark.parametrize("how", ENDING)
def test_attacks_that_end_the_connection(setting: Setting, how: str) -> None:
    chunks = ENDING[how]

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send(chunks(stream))
        upstream.until_closed(8)

    setting.hostile.arm(attack)
    with setting.unharmed():
        answer = asked(setting)
        (attacker,) = ended(setting)
        assert attacker.closed, attacker
        print(attacker)
        if setting.ours:
            assert attacker.goaways, attacker
            assert attacker.goaways[0] != f.NO_ERROR
    if answer.status == 200:
        assert answer.reset is not None or not answer.body
    else:
        assert answer.status in (502, 503)
    assert setting.counted("cluster.hostile.upstream_cx_active") == 0


@pytest.mark.parametrize("how", ["large value", "small fields", "cookie crumbs"])
@pytest.mark.parametrize("where", ["head", "trailers", "informational"])
def test_blocks_that_grow_when_they_are_decoded(setting: Setting, how: str, where: str) -> None:
    name, value = {
        "large value": (b"x-large", b"v" * 3900),
        "small fields": (b"a", b"b"),
        "cookie crumbs": (b"set-cookie", b"a=1"),
    }[how]
    bomb = f.remembered(name, value) + f.NEWEST * 12_000

    def attack(upstream: Attacker, stream: int) -> None:
        if where == "head":
            upstream.send([f.headers(stream, OK + bomb)])
        elif where == "trailers":
            upstream.send([f.headers(stream, OK, end=False), f.data(stream, b"body"), f.headers(stream, bomb)])
        else:
            upstream.send([f.headers(stream, CONTINUE + bomb, end=False), f.headers(stream, OK)])
        upstream.until(lambda: upstream.resets or upstream.goaways or upstream.closed, 3)

    setting.hostile.arm(attack)
    with setting.unharmed():
        answer = asked(setting)
        print(answer.status, answer.reset, len(answer.fields), ended(setting))
    assert answer.reset is not None or answer.status in (502, 503)


@pytest.mark.parametrize("how", ["settings", "pings", "unknown frames"])
def test_floods_beside_a_good_answer(setting: Setting, how: str) -> None:
    """What an upstream may send without end, as long as it reads the answers: its request may fail, no other does."""
    chunk = {"settings": f.settings(), "pings": f.ping(), "unknown frames": f.frame(0xBB, 0, 0, b"anything")}[how]

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send(itertools.repeat(chunk, MANY))
        upstream.send([f.headers(stream, OK)])
        upstream.until_closed(0.5)

    setting.hostile.arm(attack)
    with setting.unharmed():
        assert asked(setting).status in (200, 502, 503)


@pytest.mark.parametrize("how", ["settings", "pings"])
def test_answers_that_are_not_read(setting: Setting, how: str) -> None:
    name = "cluster.hostile.http2.outbound_control_flood"
    before = setting.counted(name)
    chunk = {"settings": f.settings(), "pings": f.ping()}[how]

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send(itertools.repeat(chunk, 3_000_000), read=False, seconds=4)
        upstream.until_closed(2)

    setting.hostile.arm(attack)
    with setting.unharmed():
        assert asked(setting).status in (502, 503)
        (attacker,) = ended(setting)
        assert attacker.closed, attacker
    if setting.ours:  # Envoy does not count it where the library beneath it is the first to see it
        assert setting.counted(name) == before + 1


def test_informational_responses_without_end(setting: Setting) -> None:
    """100 of them, or as many as there are: memory is bounded, and the request ends."""

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send(itertools.repeat(f.headers(stream, CONTINUE, end=False), MANY))
        upstream.send([f.headers(stream, OK)])
        upstream.until_closed(1)

    setting.hostile.arm(attack)
    with setting.unharmed():
        assert asked(setting).status in (200, 502, 503)


def test_all_streams_are_refused(setting: Setting) -> None:
    """Each of 1,000 requests is reset: each fails for itself."""

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.on_head = lambda one: upstream.send([f.reset(one, f.REFUSED_STREAM)])
        upstream.send(f.reset(one, f.REFUSED_STREAM) for one, _ in upstream.heads)
        upstream.until_closed(3)

    setting.hostile.arm(attack)
    with setting.unharmed(), Http2Client(setting.port) as client:
        streams: list[int] = []
        for _ in range(10):
            streams = [client.request("/hostile") for _ in range(100)]
            assert {client.response(stream).status for stream in streams} == {503}
        assert not client.goaways


def test_more_data_than_the_window(setting: Setting) -> None:
    """A response that goes on beyond every window, to a client that reads nothing."""

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send([f.headers(stream, OK, end=False), *itertools.repeat(f.data(stream, bytes(16384)), 4000)])
        upstream.until(lambda: upstream.resets or upstream.goaways or upstream.closed, 3)

    setting.hostile.arm(attack)
    with setting.unharmed(megabytes=64), setting.attacker({f.INITIAL_WINDOW_SIZE: 0}) as client:
        client.send([f.headers(1, f.request("/hostile"))])
        (upstream,) = ended(setting)
        assert f.FLOW_CONTROL_ERROR in (*upstream.resets, *upstream.goaways), upstream
        assert client.until(lambda: client.resets or client.closed), client


def test_an_upstream_that_says_nothing(setting: Setting) -> None:
    """Not even after the request's deadline is anything left of it."""

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.until(lambda: upstream.resets or upstream.closed, 8)

    setting.hostile.arm(attack)
    with setting.unharmed():
        assert asked(setting).status in (408, 504)
        (attacker,) = ended(setting)
        assert attacker.resets or attacker.closed
    eventually(lambda: not setting.counted("cluster.hostile.upstream_rq_active"), "no request is left")


def test_informational_responses_to_a_client_that_does_not_read(setting: Setting) -> None:
    """No window holds them back: the number of frames that may wait does, and the client's connection ends."""

    def attack(upstream: Attacker, stream: int) -> None:
        fields = f.block([(":status", "103"), ("link", "l" * 1000)])
        upstream.send(itertools.repeat(f.headers(stream, fields, end=False), 100_000), seconds=5)

    setting.hostile.arm(attack)
    with setting.unharmed(), setting.attacker(receive_buffer=4096) as client:
        client.send([f.headers(1, f.request("/hostile"))])
        ended(setting)


def test_a_response_in_crumbs_that_nobody_takes(setting: Setting) -> None:
    """What waits for a client costs about its size, however small its frames were."""

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send([f.headers(stream, OK, end=False), *itertools.repeat(f.data(stream, b"ab"), 600_000), f.ping()])
        upstream.until(lambda: upstream.frames[f.PING] or upstream.closed, 10)

    setting.hostile.arm(attack)
    with setting.unharmed(megabytes=12), setting.attacker({f.INITIAL_WINDOW_SIZE: 0}) as client:
        client.send([f.headers(1, f.request("/hostile"))])
        ended(setting)


def test_an_upstream_that_takes_no_streams(setting: Setting) -> None:
    """SETTINGS_MAX_CONCURRENT_STREAMS of 0: requests fail in time, and connections are not opened without end."""
    before = setting.counted("cluster.hostile.upstream_cx_total")

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send([f.settings({3: 0}), f.reset(stream, f.REFUSED_STREAM)])
        upstream.until_closed(8)

    setting.hostile.arm(attack)
    with setting.unharmed(), Http2Client(setting.port, timeout=8) as client:
        streams = [client.request("/hostile") for _ in range(50)]
        found = [client.response(stream) for stream in streams]
        assert all(one.reset is not None or one.status in (408, 503, 504) for one in found), found
    assert setting.counted("cluster.hostile.upstream_cx_total") - before <= 100


def test_an_upstream_that_takes_nothing_and_says_goodbye(setting: Setting) -> None:
    """GOAWAY below every request: it may be tried again, but not for ever."""
    before = setting.counted("cluster.hostile.upstream_cx_total")

    def attack(upstream: Attacker, stream: int) -> None:
        upstream.send([f.goaway(f.NO_ERROR, 0)])
        upstream.until_closed(2)

    setting.hostile.arm(attack)
    with setting.unharmed():
        assert asked(setting).status in (502, 503)
    assert setting.counted("cluster.hostile.upstream_cx_total") - before <= 10
