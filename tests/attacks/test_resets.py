"""Streams that are begun to be thrown away: by the client, or by us because it makes us (CVE-2023-44487 and its kin)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks import frames as f
from tests.attacks.attacker import Attacker
from tests.attacks.conftest import Setting

MANY = 20_000
REQUEST = f.request("/echo")
POST = f.request("/echo", "POST")
WITH_LENGTH = f.request("/echo", "POST", [("content-length", "5")])


def rapid() -> Iterator[bytes]:
    """A request and its reset, again and again."""
    for number in range(MANY):
        stream = 1 + 2 * number
        yield f.headers(stream, REQUEST) + f.reset(stream)


def test_rapid_reset(setting: Setting) -> None:
    before = setting.counted("http2.rx_reset")
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(rapid())
        setting.has_ended(attacker)
        assert attacker.sent < MANY * len(f.headers(1, REQUEST) + f.reset(1))
    assert setting.counted("http2.rx_reset") - before >= 250
    assert setting.counted("http.in.downstream_rq_too_many_premature_resets") > 0


def test_rapid_reset_of_uploads_that_have_begun(setting: Setting) -> None:
    def attack() -> Iterator[bytes]:
        for number in range(MANY):
            stream = 1 + 2 * number
            yield f.headers(stream, POST, end=False) + f.data(stream, b"x" * 100) + f.reset(stream)

    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(attack())
        setting.has_ended(attacker)


def test_rapid_reset_by_many_connections(setting: Setting) -> None:
    """Each stays below its own limit and comes again: no connection ends for it, and all are served."""

    def attack() -> Iterator[bytes]:
        for number in range(200):
            stream = 1 + 2 * number
            yield f.headers(stream, REQUEST) + f.reset(stream)

    with setting.unharmed():
        for _ in range(30):
            with setting.attacker() as attacker:
                attacker.send(attack())


def made_to_reset(how: str) -> Iterator[bytes]:
    """Requests that are fine, each with a frame behind it that makes the server reset its stream."""
    for number in range(5000):
        stream = 1 + 2 * number
        if how == "window beyond its largest":
            yield f.headers(stream, REQUEST) + f.window_update(stream, f.LARGEST)
        elif how == "window of 0":
            yield f.headers(stream, REQUEST) + f.frame(f.WINDOW_UPDATE, 0, stream, bytes(4))
        elif how == "data behind the end":
            yield f.headers(stream, REQUEST) + f.data(stream, b"more", end=True)
        elif how == "a head behind the end":
            yield f.headers(stream, REQUEST) + f.headers(stream, REQUEST)
        elif how == "more than the content-length":
            yield f.headers(stream, WITH_LENGTH, end=False) + f.data(stream, b"too long", end=True)
        elif how == "a priority of 4 octets":
            yield f.headers(stream, REQUEST) + f.frame(f.PRIORITY, 0, stream, bytes(4))
        else:
            yield f.headers(stream, f.block([(":method", "GET"), (":path", "/")]))


@pytest.mark.parametrize(
    "how",
    [
        "window beyond its largest", "window of 0", "data behind the end", "a head behind the end",
        "more than the content-length", "a priority of 4 octets", "a head without a scheme",
    ],
)  # fmt: skip
def test_made_you_reset(setting: Setting, how: str) -> None:
    """After some resets, or at once where the error is one of the connection, the connection ends."""
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(made_to_reset(how))
        setting.has_ended(attacker, f.ENHANCE_YOUR_CALM, f.PROTOCOL_ERROR, f.FLOW_CONTROL_ERROR, f.FRAME_SIZE_ERROR, 5)
        assert attacker.resets.total() <= 1000


def test_more_streams_than_allowed(setting: Setting) -> None:
    """Requests that never end: those above ``max_concurrent_streams`` are refused; refusing without end is not."""

    def attack() -> Iterator[bytes]:
        for number in range(20_000):
            yield f.headers(1 + 2 * number, POST, end=False)

    with setting.unharmed(megabytes=64), setting.attacker() as attacker:
        attacker.send(attack())
        assert attacker.until_closed(10) or attacker.resets, attacker
        print(attacker)
        assert attacker.resets[f.REFUSED_STREAM] <= 20_000 - 1000


def test_a_client_that_began_too_much_before_it_knew(setting: Setting) -> None:
    """1,400 uploads on their way before our SETTINGS have come: what is above the limit is refused, its data, which
    comes later, is ignored, and the others are served."""
    with setting.unharmed(megabytes=64), Attacker(setting.port) as attacker:
        streams = [1 + 2 * number for number in range(1400)]
        attacker.send([f.PREFACE + f.settings(), *(f.headers(one, POST, end=False) for one in streams)])
        attacker.send([f.data(one, b"data", end=True) for one in reversed(streams)])
        assert attacker.until(lambda: len(attacker.heads) + attacker.resets.total() >= 1400 or attacker.closed), (
            attacker
        )
        assert not attacker.goaways, attacker
        assert attacker.resets == {f.REFUSED_STREAM: 376}, attacker
        assert [status for _, status in attacker.heads] == ["200"] * 1024
