"""Clients that want much and take nothing: windows that stay shut, sockets that nobody reads."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.attacks import frames as f
from tests.attacks.conftest import IDLE, Setting
from tests.grpc.bootstraps import AUTHORITY
from tests.grpc.subjects import eventually

BIG = 3_000_000
STREAMS = 100


def active(setting: Setting) -> int:
    """Streams under way, without that of the bystander."""
    return setting.counted("http.in.downstream_rq_active")


def test_windows_that_stay_shut(setting: Setting) -> None:
    """100 large responses and a window of 0: the data stays with the upstream but for its windows' worth, and after
    ``stream_idle_timeout`` the streams are gone."""
    with setting.unharmed(megabytes=64), setting.attacker({f.INITIAL_WINDOW_SIZE: 0}) as attacker:
        attacker.send(f.headers(1 + 2 * number, f.request("/echo/bytes/100000")) for number in range(STREAMS))
        assert attacker.until(lambda: len(attacker.heads) == STREAMS), attacker
        assert not attacker.frames[f.DATA]
        assert attacker.until(lambda: attacker.resets.total() == STREAMS or attacker.closed, IDLE + 3), attacker
        eventually(lambda: active(setting) <= 1, "no stream is left")


def test_a_connection_window_that_stays_shut(setting: Setting) -> None:
    """The streams' windows are wide, the connection's is 65,535 octets and never grows."""
    with setting.unharmed(megabytes=64), setting.attacker({f.INITIAL_WINDOW_SIZE: f.LARGEST}) as attacker:
        attacker.send(f.headers(1 + 2 * number, f.request("/echo/bytes/100000")) for number in range(STREAMS))
        assert attacker.until(lambda: attacker.resets.total() >= STREAMS - 1 or attacker.closed, IDLE + 3), attacker
        eventually(lambda: active(setting) <= 1, "no stream is left")


def test_windows_that_open_by_one_octet(setting: Setting) -> None:
    """Each window is opened by one octet again and again: a flood of windows, or frames of one octet, but no harm."""

    def attack() -> Iterator[bytes]:
        for stream in itertools.islice(itertools.cycle(range(1, 2 * STREAMS, 2)), 30_000):
            yield f.window_update(stream, 1)

    with setting.unharmed(megabytes=64), setting.attacker({f.INITIAL_WINDOW_SIZE: 0}) as attacker:
        attacker.send(f.headers(1 + 2 * number, f.request("/echo/bytes/100000")) for number in range(STREAMS))
        assert attacker.until(lambda: len(attacker.heads) == STREAMS), attacker
        attacker.send(attack())
        print(attacker)


def test_large_responses_that_nobody_reads(setting: Setting) -> None:
    """Wide windows and a socket that is not read: what waits is bounded by watermarks, not by what was asked for."""
    with (
        setting.unharmed(megabytes=64),
        setting.attacker({f.INITIAL_WINDOW_SIZE: f.LARGEST}, receive_buffer=4096) as attacker,
    ):
        attacker.send([f.window_update(0, f.LARGEST - 65535)])
        attacker.send(
            (f.headers(1 + 2 * number, f.request(f"/echo/bytes/{BIG}")) for number in range(STREAMS)), read=False
        )
        eventually(lambda: active(setting) <= 1, "no stream is left", IDLE + 5)


def over_tls(setting: Setting) -> ssl.SSLSocket:
    """A connection with TLS that says its preface, and whose socket takes little while it is not read."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["h2"])
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(5)
    sock.connect(("127.0.0.1", setting.proxy.ports["tls"]))
    made = context.wrap_socket(sock, server_hostname="server.example")
    made.sendall(f.PREFACE + f.settings({f.INITIAL_WINDOW_SIZE: f.LARGEST}) + f.window_update(0, f.LARGEST - 65535))
    return made


def test_large_responses_over_tls_that_nobody_reads(setting: Setting) -> None:
    """What is encrypted and not taken is bounded, too."""
    with setting.unharmed(), over_tls(setting) as sock:
        sock.sendall(b"".join(f.headers(1 + 2 * n, f.request(f"/echo/bytes/{BIG}")) for n in range(STREAMS)))
        eventually(lambda: setting.counted("http.tls.downstream_rq_total") >= STREAMS, "the requests have come")
        eventually(lambda: not setting.counted("http.tls.downstream_rq_active"), "no stream is left", IDLE + 5)


def test_pings_over_tls_whose_answers_nobody_reads(setting: Setting) -> None:
    pings = f.ping() * 4000
    with setting.unharmed(), over_tls(setting) as sock:
        with pytest.raises(OSError):  # closed; until then all is read and thrown away
            for _ in range(20_000):
                sock.sendall(pings)
        eventually(lambda: not setting.counted("http.tls.downstream_cx_active"), "the connection has ended")


def test_many_small_responses_that_nobody_reads(setting: Setting) -> None:
    """Answers that the proxy makes itself, as fast as they are asked for."""
    with setting.unharmed(megabytes=64), setting.attacker(receive_buffer=4096) as attacker:
        small = f.request("/direct")
        attacker.send((f.headers(1 + 2 * number, small) for number in range(300_000)), read=False, seconds=4)
        print(attacker)


def test_uploads_that_stop(setting: Setting) -> None:
    """1,000 requests that have begun and never go on are gone after ``stream_idle_timeout``."""
    begun = f.request("/echo", "POST")
    with setting.unharmed(megabytes=64), setting.attacker() as attacker:
        attacker.send(
            f.headers(1 + 2 * number, begun, end=False) + f.data(1 + 2 * number, b"x") for number in range(1000)
        )
        assert attacker.until(lambda: attacker.resets.total() + len(attacker.heads) >= 1000, IDLE + 5), attacker
        eventually(lambda: active(setting) <= 1, "no stream is left")


def test_more_data_than_the_window(setting: Setting) -> None:
    """A body beyond every window, to an upstream that takes nothing: the flow control is enforced."""
    setting.hostile.arm(lambda upstream, stream: upstream.until_closed(20))
    with setting.unharmed(megabytes=64), setting.attacker() as attacker:
        attacker.send([f.headers(1, f.request("/hostile/silent", "POST"), end=False)])
        attacker.send(itertools.repeat(f.data(1, bytes(16384)), 3000))  # 48 MB
        assert attacker.until(lambda: f.FLOW_CONTROL_ERROR in (*attacker.resets, *attacker.goaways)), attacker


@pytest.mark.parametrize("size", [2, 50])
def test_an_upload_in_crumbs_that_nobody_takes(setting: Setting, size: int) -> None:
    """What waits for an upstream costs about its size, however small its frames were."""
    setting.hostile.arm(lambda upstream, stream: upstream.until_closed(20))
    with setting.unharmed(megabytes=12), setting.attacker() as attacker:
        attacker.send([f.headers(1, f.request("/hostile/silent", "POST"), end=False)])
        attacker.send(itertools.repeat(f.data(1, bytes(size)), 600_000 // (1 + size // 25)))
        attacker.send([f.ping()])
        assert attacker.until(lambda: attacker.frames[f.PING] or attacker.closed, 20), attacker
    setting.hostile.hang_up()
