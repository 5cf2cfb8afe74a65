"""Header blocks that are very large, very large once decoded, or that never end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import pytest

from tests.attacks import frames as f
from tests.attacks.attacker import Attacker
from tests.attacks.conftest import Setting

REQUEST = f.request("/echo")


@pytest.mark.parametrize("size", [0, 1, 100, 16384])
def test_continuation_flood(setting: Setting, size: int) -> None:
    """One header block, and CONTINUATION without end."""
    part = f.continuation(1, b"\x00\x01a\x7f\xff\x7f" + b"b" * (size - 6) if size > 6 else bytes(size))
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([f.headers(1, REQUEST, whole=False), *itertools.repeat(part, 5000)])
        setting.has_ended(attacker, f.ENHANCE_YOUR_CALM, f.COMPRESSION_ERROR)


@pytest.mark.parametrize("how", ["large value", "small fields", "cookie crumbs", "empty cookie crumbs"])
def test_blocks_that_grow_when_they_are_decoded(setting: Setting, how: str) -> None:
    """A field that is remembered once and said 16,000 times in one octet each, in one request after another."""
    name, value = {
        "large value": (b"x-large", b"v" * 3900),
        "small fields": (b"a", b"b"),
        "cookie crumbs": (b"cookie", b"a=1"),
        "empty cookie crumbs": (b"cookie", b""),
    }[how]
    first = f.headers(1, REQUEST + f.remembered(name, value))
    bombs = (f.headers(3 + 2 * number, REQUEST + f.NEWEST * 16_000) for number in range(300))
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([first])
        attacker.send(bombs)
        attacker.until(lambda: attacker.resets.total() + len(attacker.heads) >= 300, 3)
        print(attacker)
        served = len([stream for stream, status in attacker.heads if status == "200"])
        assert served <= 1, f"{served} were served"


def test_a_bomb_in_trailers(setting: Setting) -> None:
    head = f.headers(1, f.request("/echo", "POST") + f.remembered(b"x-large", b"v" * 3900), end=False)
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send([head, f.headers(1, f.NEWEST * 16_000)])
        assert attacker.until(lambda: attacker.resets or attacker.goaways or attacker.heads or attacker.closed), (
            attacker
        )
        assert not any(status == "200" for _, status in attacker.heads)


def test_large_heads(setting: Setting) -> None:
    """Of 100 KB, as they are: each is refused, and nobody else's request."""
    large = REQUEST + f.block([(f"x-{number}", "v" * 5000) for number in range(20)])
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(f.in_frames(1 + 2 * number, large) for number in range(100))
        attacker.until(lambda: attacker.resets.total() + len(attacker.heads) >= 100, 3)
        assert attacker.resets or attacker.closed or attacker.heads, attacker
        assert not any(status == "200" for _, status in attacker.heads)


def test_many_fields(setting: Setting) -> None:
    """10,000 small ones."""
    many = REQUEST + f.block([(f"x-{number}", "") for number in range(10_000)])
    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(f.in_frames(1 + 2 * number, many) for number in range(30))
        assert attacker.until(lambda: attacker.resets or attacker.heads or attacker.closed, 3), attacker
        assert not any(status == "200" for _, status in attacker.heads)


def test_tables_that_change_all_the_time(setting: Setting) -> None:
    """Every block puts new fields into the table, whose oldest fall out, and changes its size."""

    def attack() -> Iterator[bytes]:
        for number in range(3000):
            fields = b"".join(f.remembered(b"x-%d" % one, b"%d" % number * 10) for one in range(20))
            size = b"\x20" if number % 2 else b"\x3f\xe1\x1f"
            yield f.headers(1 + 2 * number, size + REQUEST + fields)

    with setting.unharmed(), setting.attacker() as attacker:
        attacker.send(attack())
        assert attacker.until(lambda: len(attacker.heads) == 3000 or attacker.closed, 10), attacker


def over(attacker: Attacker) -> object:
    """Whether its request has ended, one way or another."""
    return attacker.closed or attacker.resets or attacker.goaways


@pytest.mark.parametrize("continued", [False, True])
def test_blocks_that_never_end(setting: Setting, continued: bool) -> None:
    """200 connections that stop in the middle of a header block are gone after ``request_headers_timeout``."""
    attackers = []
    with setting.unharmed():
        for _ in range(200):
            attacker = setting.attacker()
            part = f.continuation(1, b"\x00\x01a\x01b") if continued else b""
            attacker.send([f.headers(1, REQUEST, whole=False) + part])
            attackers.append(attacker)
        for attacker in attackers:
            assert attacker.until(partial(over, attacker), 8), attacker
            attacker.close()


def test_a_frame_that_never_ends(setting: Setting) -> None:
    """Connections that stop in the middle of a frame hold no more than they have sent."""
    attackers: list[Attacker] = []
    with setting.unharmed():
        for _ in range(100):
            attacker = setting.attacker()
            attacker.send([f.frame(f.HEADERS, 5, 1, REQUEST, length=16384)])
            attackers.append(attacker)
        for attacker in attackers:
            attacker.close()


def test_invalid_compression(setting: Setting) -> None:
    for data in (b"\xff" * 20, b"\x80", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x00\x84\xff\xff\xff\xff\x01a"):
        with setting.unharmed(), setting.attacker() as attacker:
            attacker.send([f.headers(1, REQUEST + data)])
            setting.has_ended(attacker, f.COMPRESSION_ERROR)
