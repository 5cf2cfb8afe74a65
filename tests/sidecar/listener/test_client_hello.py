from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.listener.client_hello import ClientHello, ClientHelloTooLarge, NotClientHello, parse_client_hello

LIMIT = 16384


def real_hello(server_name: str | None, protocols: list[str]) -> bytes:
    """What the ssl module sends first."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    if server_name is None:
        context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def message(*extensions: bytes, body: bytes | None = None) -> bytes:
    """A handshake message with these extensions."""
    if body is None:
        listed = b"".join(extensions)
        body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + struct.pack(">H", len(listed))
        body += listed
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(data: bytes, size: int = 16384) -> bytes:
    """A message in records of ``size`` bytes."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">HH", kind, len(content)) + content


def name_extension(name: bytes) -> bytes:
    entry = b"\x00" + struct.pack(">H", len(name)) + name
    return extension(0, struct.pack(">H", len(entry)) + entry)


REAL = real_hello("Www.Example.com", ["h2", "http/1.1"])
PARSED = ClientHello("www.example.com", ("h2", "http/1.1"))


def test_what_the_ssl_module_sends() -> None:
    assert parse_client_hello(REAL, LIMIT) == PARSED
    assert parse_client_hello(real_hello(None, []), LIMIT) == ClientHello("", ())


def test_byte_by_byte_and_with_trailing_bytes() -> None:
    for size in range(len(REAL)):
        assert parse_client_hello(REAL[:size], LIMIT) is None
    assert parse_client_hello(REAL + b"\x16\x03garbage", LIMIT) == PARSED


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_message_in_many_records(size: int) -> None:
    split = records(REAL[5:], size)
    assert parse_client_hello(split, LIMIT) == PARSED
    assert parse_client_hello(split[:-1], LIMIT) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x10\x02",
        records(message(body=b"short")),
        records(message(name_extension(b"a"), name_extension(b"b"))),
        records(message(name_extension(b""))),
        records(message(name_extension(b"a\x00b"))),
        records(message(name_extension(b"a" * 256))),
        records(message(extension(16, b"\x00\x00"))),
        records(message(extension(16, b"\x00\x01\x00"))),
        records(message(extension(16, b"\x00\x05\x02h2"))),
    ],
)
def test_what_is_no_client_hello_is_refused(data: bytes) -> None:
    with pytest.raises(NotClientHello):
        parse_client_hello(data, LIMIT)


def test_one_that_says_it_is_too_long_is_refused_at_once() -> None:
    assert parse_client_hello(REAL, len(REAL)) == PARSED
    with pytest.raises(ClientHelloTooLarge):
        parse_client_hello(REAL[:9], len(REAL) - 1)
    with pytest.raises(ClientHelloTooLarge):
        parse_client_hello(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff", LIMIT)


def test_many_tiny_records_do_not_pass_the_limit() -> None:
    with pytest.raises(ClientHelloTooLarge):
        parse_client_hello(records(message(extension(99, bytes(300))), 1)[:500], 500)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_one_of_the_answers(data: bytes) -> None:
    try:
        found = parse_client_hello(data, LIMIT)
    except (NotClientHello, ClientHelloTooLarge):
        return
    assert found is None or isinstance(found, ClientHello)


@settings(max_examples=300)
@given(st.integers(0, len(REAL) - 1), st.integers(0, 255), st.integers(0, len(REAL)))
def test_a_changed_byte_never_breaks_the_parser_and_more_bytes_never_take_back_a_refusal(
    at: int, value: int, cut: int
) -> None:
    changed = REAL[:at] + bytes((value,)) + REAL[at + 1 :]
    outcomes = []
    for data in (changed[:cut], changed):
        try:
            outcomes.append(parse_client_hello(data, LIMIT))
        except (NotClientHello, ClientHelloTooLarge) as error:
            outcomes.append(type(error))  # type: ignore[arg-type]
    if outcomes[0] is not None:
        assert outcomes[0] == outcomes[1]
