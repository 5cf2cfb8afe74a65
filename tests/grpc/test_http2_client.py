"""Requests by the h2 library, through the proxy to a server on the h2 library."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
from hyperframe.frame import GoAwayFrame

from tests.grpc.bootstraps import AUTHORITY
from tests.grpc.conftest import Setting
from tests.grpc.http2_client import Http2Client


@pytest.fixture
def client(setting: Setting, listener_name: str) -> Iterator[Http2Client]:
    authority = AUTHORITY.pem if listener_name == "tls" else None
    with Http2Client(setting.proxy.ports[listener_name], authority) as made:
        yield made


def test_many_requests_on_one_connection(client: Http2Client) -> None:
    streams = {client.request(f"/echo/{number}"): number for number in range(100)}
    for stream_id, number in streams.items():
        answer = client.response(stream_id)
        assert answer.status == 200
        assert dict(answer.json()["fields"])[":path"] == f"/echo/{number}"
    assert not client.goaways


def test_fields_arrive_as_they_were_sent(client: Http2Client) -> None:
    sent = [
        ("x-empty", ""), ("x-twice", "1"), ("x-twice", "2"), ("x-spaces", "a  b\tc"), ("x-long", "v" * 4000),
        ("cookie", "a=1"), ("cookie", "b=2"), ("accept-language", "de"), ("te", "trailers"),
    ]  # fmt: skip
    for _ in range(3):  # once more with what HPACK remembers
        answer = client.get("/echo", fields=sent)
        found = [(name, value) for name, value in answer.json()["fields"]]
        assert ("cookie", "a=1; b=2") in found or {("cookie", "a=1"), ("cookie", "b=2")} <= set(found)
        for name, value in sent:
            assert name == "cookie" or (name, value) in found or (name, "1,2") in found, (name, found)


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65535, 65536, 1_000_000])
def test_bodies_of_all_sizes(client: Http2Client, size: int) -> None:
    upload = client.request("/echo", "POST", end=False)
    client.send(upload, bytes(size), end=True)
    assert client.response(upload).json()["size"] == size
    download = client.get(f"/echo/bytes/{size}")
    assert (download.status, len(download.body), download.field("content-length")) == (200, size, str(size))


def test_trailers_in_both_directions(client: Http2Client) -> None:
    answer = client.get("/echo/trailers", body=b"body", trailers=[("x-end", "1"), ("x-more", "2")])
    assert answer.json()["trailers"] == [["x-end", "1"], ["x-more", "2"]]
    assert answer.trailers == [("x-trailer", "there")]


def test_a_reset_stream_harms_no_other(client: Http2Client) -> None:
    lasting = client.request("/echo", "POST", end=False)
    for _ in range(20):
        given_up = client.request("/echo/bytes/1000000")
        client.h2.reset_stream(given_up, 8)
        client.flush()
    client.send(lasting, b"whole", end=True)
    assert client.response(lasting).json()["size"] == 5
    assert client.get("/direct").body == b"hello"
    assert not client.goaways


def test_pings_are_answered(client: Http2Client) -> None:
    for number in range(50):
        client.h2.ping(number.to_bytes(8, "big"))
    client.flush()
    client.until(lambda: client.pongs == 50)
    assert client.get("/direct").status == 200


def test_settings_change_under_way(client: Http2Client) -> None:
    """Windows that shrink below 0 and grow again, and a table of HPACK that goes and comes back."""
    from h2.settings import SettingCodes

    assert client.get("/echo", fields=[("x-a", "1")]).status == 200
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10, SettingCodes.HEADER_TABLE_SIZE: 0})
    client.flush()
    stream_id = client.request("/echo/bytes/1000")
    response = client.responses[stream_id]
    client.until(lambda: response.status)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000, SettingCodes.HEADER_TABLE_SIZE: 4096})
    client.flush()
    assert len(client.response(stream_id).body) == 1000
    assert client.get("/echo", fields=[("x-a", "1")]).status == 200


def test_a_client_that_says_goodbye(client: Http2Client) -> None:
    """After its GOAWAY what is under way is still answered, and then the connection ends."""
    streams = [client.request("/echo") for _ in range(3)]
    client.socket.sendall(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
    for stream_id in streams:
        assert client.response(stream_id).status == 200


def test_no_request_gets_anything_of_another(setting: Setting, listener_name: str) -> None:
    """Four connections at once, heads that are alike but for their values, now and then one that is not: what each
    sends arrives, and what arrives is what it sent."""
    authority = AUTHORITY.pem if listener_name == "tls" else None
    problems: list[object] = []

    def work(who: int) -> None:
        chance = random.Random(who)
        try:
            with Http2Client(setting.proxy.ports[listener_name], authority) as client:
                for turn in range(8):
                    sent: dict[int, tuple[str, list[tuple[str, str]], bytes | None]] = {}
                    for number in range(25):
                        path = f"/echo/{who}/{turn}?n={number}"
                        fields = [("x-own", f"{who}-{turn}-{number}"), ("user-agent", "u" * chance.choice((3, 9)))]
                        if chance.random() < 0.3:
                            fields.append((f"x-{chance.randrange(5)}", str(chance.random())))
                        body = bytes(chance.randrange(1, 3000)) if chance.random() < 0.4 else None
                        sent[client.request(path, fields=fields, body=body)] = path, fields, body
                    for stream_id, (path, fields, body) in sent.items():
                        answer = client.response(stream_id).json()
                        found = dict(answer["fields"])
                        own = {name: value for name, value in found.items() if name[:2] == "x-" and name[2:].isdigit()}
                        assert found[":path"] == path
                        assert {name: found[name] for name, _ in fields} == dict(fields)
                        assert own.keys() == {name for name, _ in fields if name[2:].isdigit()}
                        assert answer["size"] == len(body or b"")
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert not problems, problems
