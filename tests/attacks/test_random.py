"""Frames by chance, right and wrong, in any order: the proxy ends connections or not, and nothing else happens."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from tests.attacks import frames as f
from tests.attacks.attacker import Attacker
from tests.attacks.conftest import Setting
from tests.grpc.http2_client import Http2Client

SEED = int(os.environ.get("MIZZEN_ATTACK_SEED", "1"))
_FIELDS = [
    ("te", "trailers"), ("cookie", "a=1"), ("content-length", "5"), ("connection", "close"), ("x-a", "b" * 200),
    ("expect", "100-continue"), ("transfer-encoding", "chunked"), ("host", "b.example"), ("Upper", "x"), ("", "empty"),
]  # fmt: skip


def a_frame(chance: random.Random, response: bool) -> bytes:
    """Mostly a valid frame, for some stream."""
    stream = chance.choice((0, 1, 3, 5, 7, 9, 11, 2, 4, 101, 2**31 - 1))
    fields = chance.sample(_FIELDS, chance.randrange(4)) if chance.random() < 0.3 else []
    if response:
        head = f.block([(":status", chance.choice(("200", "100", "204", "304", "999", "x"))), *fields])
    else:
        head = f.request(
            chance.choice(("/echo", "/direct", "/echo/bytes/70000")), chance.choice(("GET", "POST")), fields
        )
    kind = chance.randrange(12)
    if kind < 3:
        return f.headers(stream, head, end=chance.random() < 0.5, whole=chance.random() < 0.9)
    if kind == 3:
        return f.data(stream, bytes(chance.choice((0, 1, 5, 1000, 16384))), end=chance.random() < 0.5)
    if kind == 4:
        return f.continuation(stream, head[: chance.randrange(len(head))], whole=chance.random() < 0.5)
    if kind == 5:
        return f.frame(f.RST_STREAM, 0, stream, chance.randrange(16).to_bytes(4, "big"))
    if kind == 6:
        return f.setting_list(
            [(chance.randrange(10), chance.choice((0, 1, 100, 65535, 1 << 24, f.LARGEST, 2**32 - 1)))]
        )
    if kind == 7:
        return f.frame(f.WINDOW_UPDATE, 0, stream, chance.choice((0, 1, 65535, f.LARGEST)).to_bytes(4, "big"))
    if kind == 8:
        return f.ping() if chance.random() < 0.8 else f.goaway(chance.randrange(16), stream & f.LARGEST)
    if kind == 9:
        return f.headers(stream, f.block([("x-trailer", "1"), *fields]))
    if kind == 10:
        return f.priority(stream, chance.choice((0, stream, 3)))
    return f.frame(chance.randrange(256), chance.randrange(256), stream, chance.randbytes(chance.randrange(40)))


def some_frames(chance: random.Random, response: bool = False) -> Iterator[bytes]:
    """A few of them; in one of four connections some octets are changed."""
    harmed = chance.random() < 0.25
    for _ in range(chance.randrange(1, 25)):
        found = a_frame(chance, response)
        if harmed and chance.random() < 0.2:
            at = chance.randrange(len(found))
            found = found[:at] + chance.randbytes(1) + found[at + 1 :]
        yield found


def test_frames_of_clients(setting: Setting) -> None:
    with setting.unharmed():
        for number in range(100):
            chance = random.Random(SEED * 1000 + number)
            with Attacker(setting.port) as attacker:
                attacker.begin({f.INITIAL_WINDOW_SIZE: chance.choice((0, 1, 65535, f.LARGEST))})
                attacker.send(some_frames(chance))
                attacker.until_closed(chance.choice((0, 0.01, 0.05)))


def test_frames_of_upstreams(setting: Setting) -> None:
    count = 0

    def attack(upstream: Attacker, stream: int) -> None:
        nonlocal count
        chance = random.Random(SEED * 1000 + count)
        count += 1
        upstream.send(some_frames(chance, response=True))
        upstream.until_closed(0.02)

    setting.hostile.arm(attack)
    with setting.unharmed(), Http2Client(setting.port) as client:
        for _ in range(100):
            answer = client.get("/hostile", fields=[("x-own", "1")])
            assert answer.ended or answer.reset is not None
        assert not client.goaways
    setting.hostile.hang_up()
    assert not setting.hostile.failures, setting.hostile.failures
