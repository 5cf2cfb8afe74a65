"""Frames that carry nothing, in any number: settings, pings, priorities, windows, empty data, and what is unknown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.attacks import frames as f
from tests.attacks.conftest import Setting

MANY = 30_000
REQUEST = f.request("/echo")
POST = f.request("/echo", "POST")

FLOODS = {
    "settings": f.settings(),
    "settings with values": f.settings({f.INITIAL_WINDOW_SIZE: 65535, f.HEADER_TABLE_SIZE: 0}),
    "pings": f.ping(),
    "pings that answer nothing": f.frame(f.PING, f.ACK, 0, bytes(8)),
    "settings that acknowledge nothing": f.settings(ack=True),
    "frames of an unknown type": f.frame(0xBB, 0xFF, 0, b"anything"),
}


@pytest.mark.parametrize("how", FLOODS)
def test_floods_by_a_client_that_reads(setting: Setting, how: str) -> None:
    """Answers that are read cost nothing but time: whether the connection ends or not, others do not notice."""
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(itertools.repeat(FLOODS[how], MANY))
        attacker.send([f.headers(1, REQUEST)])
        assert attacker.until(lambda: attacker.heads or attacker.closed, 10), attacker
        print(attacker)


@pytest.mark.parametrize("how", ["settings", "settings with values", "pings"])
def test_answers_that_are_not_read(setting: Setting, how: str) -> None:
    """Control frames that are answered, by a client that does not read: no more than a thousand wait for it."""
    name = "http2.outbound_control_flood"
    before = setting.counted(name)
    with setting.unharmed(), setting.attacker(receive_buffer=4096) as attacker:
        attacker.send(itertools.repeat(FLOODS[how], 2_000_000), read=False, seconds=5)
        assert attacker.until_closed(), attacker  # what it has not read by then, GOAWAY too, may be lost with it
    if setting.ours:  # Envoy does not count it where the library beneath it is the first to see it
        assert setting.counted(name) == before + 1


def test_resets_that_are_not_read(setting: Setting) -> None:
    """Streams beyond the limit, refused one by one, to a client that does not read."""

    def attack() -> Iterator[bytes]:
        for number in range(1_000_000):
            yield f.headers(1 + 2 * number, POST, end=False)

    with setting.unharmed(megabytes=64), setting.attacker(receive_buffer=4096) as attacker:
        attacker.send(attack(), read=False, seconds=5)
        assert attacker.until_closed(), attacker


def test_empty_data(setting: Setting) -> None:
    name = "http2.inbound_empty_frames_flood"
    before = setting.counted(name)
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, POST, end=False), *itertools.repeat(f.data(1), MANY)])
        setting.has_ended(attacker)
    assert setting.counted(name) - before == 1


def test_data_of_nothing_but_padding(setting: Setting) -> None:
    """Each frame brings 256 octets that are not data: the window is given back, and nothing is passed on."""
    padded = f.frame(f.DATA, 0x8, 1, b"\xff" + bytes(255))
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, POST, end=False), *itertools.repeat(padded, 5000)])
        attacker.send([f.data(1, b"end", end=True)])
        assert attacker.until(lambda: attacker.heads or attacker.closed), attacker


def test_data_of_one_octet(setting: Setting) -> None:
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, POST, end=False), *itertools.repeat(f.data(1, b"x"), 5000)])
        attacker.send([f.data(1, end=True)])
        assert attacker.until(lambda: attacker.heads or attacker.closed, 20), attacker


@pytest.mark.parametrize("stream", [0, 1])
def test_window_updates(setting: Setting, stream: int) -> None:
    name = "http2.inbound_window_update_frames_flood"
    before = setting.counted(name)
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, POST, end=False), *itertools.repeat(f.window_update(stream, 1), MANY)])
        setting.has_ended(attacker)
    assert setting.counted(name) - before == 1


@pytest.mark.parametrize("stream", [1, 3])
def test_priorities(setting: Setting, stream: int) -> None:
    """For a stream that is open, and for one that is idle."""
    name = "http2.inbound_priority_frames_flood"
    before = setting.counted(name)
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, POST, end=False), *itertools.repeat(f.priority(stream), MANY)])
        setting.has_ended(attacker)
    assert setting.counted(name) - before == 1


def test_settings_that_move_all_windows(setting: Setting) -> None:
    """1,000 open streams, and SETTINGS that change the initial window 2,000 times in one frame, again and again."""
    streams = [f.headers(1 + 2 * number, POST, end=False) for number in range(1000)]
    values = list(itertools.islice(itertools.cycle([(f.INITIAL_WINDOW_SIZE, 1), (f.INITIAL_WINDOW_SIZE, 2)]), 2000))
    with setting.unharmed(megabytes=64), setting.attacker() as attacker:
        attacker.send(streams)
        attacker.send(itertools.repeat(f.setting_list(values), 50))
        attacker.send([f.ping()])
        assert attacker.until(lambda: attacker.frames[f.PING] or attacker.closed, 10), attacker
        print(attacker)


def test_settings_frames_that_move_all_windows(setting: Setting) -> None:
    """The same with one change in each frame."""
    streams = [f.headers(1 + 2 * number, POST, end=False) for number in range(1000)]
    values = [f.setting_list([(f.INITIAL_WINDOW_SIZE, size)]) for size in (1, 2)]
    with setting.unharmed(megabytes=64), setting.attacker() as attacker:
        attacker.send(streams)
        attacker.send(itertools.islice(itertools.cycle(values), 10_000))
        attacker.send([f.ping()])
        assert attacker.until(lambda: attacker.frames[f.PING] or attacker.closed, 10), attacker
        print(attacker)


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (f.frame(f.DATA, 0, 1, length=16385), {f.FRAME_SIZE_ERROR}),
        (f.frame(f.HEADERS, 5, 1, length=(1 << 24) - 1), {f.FRAME_SIZE_ERROR}),
        (f.frame(0xBB, 0, 0, length=(1 << 24) - 1), {f.FRAME_SIZE_ERROR}),
        (f.frame(f.SETTINGS, 0, 0, bytes(5)), {f.FRAME_SIZE_ERROR}),
        (f.frame(f.PING, 0, 0, bytes(7)), {f.FRAME_SIZE_ERROR}),
        (f.continuation(1, b"", whole=True), {f.PROTOCOL_ERROR}),
        (f.frame(f.PUSH_PROMISE, 4, 1, bytes(4)), {f.PROTOCOL_ERROR}),
        (f.data(1, b"idle"), {f.PROTOCOL_ERROR, 5}),
        (f.headers(2, REQUEST), {f.PROTOCOL_ERROR}),
        (f.setting_list([(f.INITIAL_WINDOW_SIZE, 1 << 31)]), {f.FLOW_CONTROL_ERROR}),
        (f.window_update(0, f.LARGEST), {f.FLOW_CONTROL_ERROR}),
    ],
)  # fmt: skip
def test_frames_that_end_the_connection_at_once(setting: Setting, data: bytes, codes: set[int]) -> None:
    with setting.attacker() as attacker:
        attacker.send([data])
        setting.has_ended(attacker, *codes)


def test_goaways_without_end(setting: Setting) -> None:
    with setting.unharmed() as bystander, setting.attacker() as attacker:
        attacker.send(itertools.repeat(f.goaway(), MANY))
        bystander.more(50)
