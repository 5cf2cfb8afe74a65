"""What TLS to endpoints takes from requests, as real Envoy takes it."""

from __future__ import annotations

import pytest

from sidecar.core.head import RequestHead
from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions, compile_names


def request(authority: bytes, *fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"/", authority, list(fields))


@pytest.mark.parametrize(
    ("authority", "server_name", "name"),
    [
        (b"a.example", "a.example", "a.example"),
        (b"a.example:8443", "a.example", "a.example"),
        (b"A.Example", "a.example", "a.example"),
        (b"127.0.0.1", "", "127.0.0.1"),
        (b"127.0.0.1:99", "", "127.0.0.1"),
        (b"[::1]:99", "", "::1"),
        (b"[::1]", "", "::1"),
        (b"single", "single", "single"),
    ],
)
def test_the_host_without_its_port(authority: bytes, server_name: str, name: str) -> None:
    both = compile_names(True, True, b"")
    assert both is not None
    assert both(request(authority)) == TransportSocketOptions(server_name, (name,))


def test_nothing_is_asked_where_there_is_no_host() -> None:
    both = compile_names(True, True, b"")
    assert both is not None
    assert both(request(b"")) == OFFERING_NOTHING


def test_each_can_be_had_alone() -> None:
    sni, san = (compile_names(*which, b"") for which in ((True, False), (False, True)))
    assert sni is not None and san is not None
    assert sni(request(b"a")) == TransportSocketOptions("a")
    assert san(request(b"a")) == TransportSocketOptions("", ("a",))
    assert compile_names(False, False, b"x-sni") is None


@pytest.mark.parametrize(
    ("values", "server_name"),
    [
        ([], "a.example"),
        ([b"o.example:77"], "o.example"),
        ([b"o.example", b"p.example"], "o.example"),
        ([b"10.0.0.1"], ""),
        ([b""], "a.example"),
    ],
)
def test_a_header_in_the_place_of_the_host(values: list[bytes], server_name: str) -> None:
    names = compile_names(True, False, b"x-sni")
    assert names is not None
    assert names(request(b"a.example", *((b"x-sni", value) for value in values))).server_name == server_name


def test_equal_hosts_share_their_options() -> None:
    names = compile_names(True, True, b"")
    assert names is not None
    first, second = names(request(b"a.example")), names(request(b"A.example:443"))
    assert first == second and hash(first) == hash(second)
    assert names(request(b"a.example")) is first


def test_who_speaks_what_does_not_matter_to_names() -> None:
    options = TransportSocketOptions("a", ("b",))
    assert options.offering(("h2",)) == TransportSocketOptions("a", ("b",), ("h2",))
