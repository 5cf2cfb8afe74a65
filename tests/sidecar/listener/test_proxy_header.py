from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.listener.proxy_header import V2_SIGNATURE, BadProxyHeader, ProxyHeader, parse_v1, parse_v2, version_of


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return V2_SIGNATURE + bytes((command, family)) + struct.pack(">H", size) + body


def addresses(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    packed = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return packed + struct.pack(">HH", *ports)


V4 = addresses("192.0.2.1", "198.51.100.2", (1234, 443))
V6 = addresses("2001:db8::1", "2001:db8::2", (1234, 443))
TLV = b"\x02\x00\x05hello\xea\x00\x00"


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", "192.0.2.1:1234", "198.51.100.2:443"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", "[2001:db8::1]:1", "[::1]:65535"),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN ff:: whatever 1 2\r\n", None, None),
    ],
)
def test_version_1(line: bytes, source: str | None, destination: str | None) -> None:
    for size in range(len(line)):
        assert version_of(line[:size]) in (None, 1)
        assert size < 6 or parse_v1(line[:size]) is None
    for data in (line, line + b"GET / HTTP/1.1\r\n\r\n"):
        header = parse_v1(data)
        assert header is not None
        assert header.size == len(line)
        assert (header.source and header.source.text) == source
        assert (header.destination and header.destination.text) == destination


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443 5\r\n",
        b"PROXY  TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +1234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1_0 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 ::1 ::1 1234 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 \xff 198.51.100.2 1234 443\r\n",
        b"PROXY " + b"x" * 101,
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\n" + b"x" * 100,
    ],
)
def test_bad_lines_of_version_1(line: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse_v1(line)


@pytest.mark.parametrize(
    ("data", "source", "tlvs"),
    [
        (v2(body=V4), "192.0.2.1:1234", {}),
        (v2(family=0x21, body=V6), "[2001:db8::1]:1234", {}),
        (v2(body=V4 + TLV), "192.0.2.1:1234", {2: b"hello", 0xEA: b""}),
        (v2(command=0x20, body=b"anything"), None, {}),
        (v2(family=0, body=TLV), None, {2: b"hello", 0xEA: b""}),
    ],
)
def test_version_2(data: bytes, source: str | None, tlvs: dict[int, bytes]) -> None:
    for size in range(len(data)):
        assert version_of(data[:size]) in (None, 2)
        assert size < 12 or parse_v2(data[:size]) is None
    for more in (b"", b"\r\n\r\n\x00"):
        header = parse_v2(data + more)
        assert header is not None
        assert header.size == len(data)
        assert (header.source and header.source.text) == source
        assert header.tlvs == tlvs


@pytest.mark.parametrize(
    "data",
    [
        v2(command=0x11, body=V4),
        v2(command=0x22, body=V4),
        v2(family=0x12, body=V4),
        v2(family=0x31, body=bytes(216)),
        v2(body=V4[:-1]),
        v2(family=0x21, body=V4),
        v2(body=V4 + b"\x02\x00"),
        v2(body=V4 + b"\x02\x00\x09hello"),
    ],
)
def test_bad_headers_of_version_2(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse_v2(data)


def test_what_is_no_header() -> None:
    assert version_of(b"") is None
    assert version_of(b"GET ") == version_of(b"PROXY\r") == version_of(b"\r\n\r\n\x00\r\nQUIX") == 0


@given(st.binary(max_size=80))
def test_any_body_gives_a_header_or_is_refused(body: bytes) -> None:
    for parse, data in ((parse_v1, b"PROXY " + body), (parse_v2, V2_SIGNATURE + body), (parse_v2, v2(body=body))):
        try:
            header = parse(data)
        except BadProxyHeader:
            continue
        assert header is None or (isinstance(header, ProxyHeader) and header.size <= len(data))


@given(st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_say_the_same(source: str, destination: str, from_port: int, to_port: int) -> None:
    one = parse_v1(f"PROXY TCP4 {source} {destination} {from_port} {to_port}\r\n".encode())
    two = parse_v2(v2(body=addresses(source, destination, (from_port, to_port))))
    assert one is not None
    assert two is not None
    assert (one.source, one.destination) == (two.source, two.destination)
